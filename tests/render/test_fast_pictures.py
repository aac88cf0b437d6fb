"""The kernels of the differentiable pictures against the reference: values and gradients."""

import math

import pytest
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.ops.rasterise import rasterise
from shapecodec.render.differentiable import blended, corner_weights, interpolate, render_mesh, to_clip
from shapecodec.render.silhouette import edge_neighbours


def ball(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """2 n by n quads around the axis, open at the poles, with bumps."""
    polar = torch.linspace(0.1, math.pi - 0.1, n + 1, dtype=torch.float64)
    around = torch.linspace(0, 2 * math.pi, 2 * n + 1, dtype=torch.float64)[:-1]
    p, q = torch.meshgrid(polar, around, indexing="ij")
    radius = 0.4 + 0.05 * (5 * p).sin() * (4 * q).sin()
    vertices = torch.stack([p.sin() * q.sin(), p.cos(), p.sin() * q.cos()], -1) * radius[..., None]
    k = torch.arange(2 * n * n)
    row, column = k // (2 * n) * (2 * n), k % (2 * n)
    a, b = row + column, row + (column + 1) % (2 * n)
    return vertices.view(-1, 3), torch.stack([a, a + 2 * n, b + 2 * n, a, b + 2 * n, b], 1).view(-1, 3)


def soup() -> tuple[torch.Tensor, torch.Tensor]:
    """Faces through each other and behind the camera, some without area, some twice, three at one edge."""
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(40, 1, 3, generator=generator) - 0.5 + torch.rand(40, 3, 3, generator=generator) - 0.5
    faces = torch.arange(120).view(40, 3)
    odd = torch.tensor([[7, 7, 7], [8, 9, 8], [12, 13, 40], [12, 13, 50]])
    return corners.view(-1, 3).double(), torch.cat([faces, faces[5:9], odd])


SCENES = {"faces of pixels": lambda: ball(6), "faces below a pixel": lambda: ball(20), "soup": soup}


def cameras(width: int, height: int) -> list[Camera]:
    return [Camera.perspective(orbit(yaw, 30, 1.6), (0, 0, 0), 40.0, (width, height)) for yaw in (20, 130)]


def blends(scene: str, dtype: torch.dtype, backend: str, *, table: bool = False) -> list[torch.Tensor]:
    vertices, faces = SCENES[scene]()
    clip = to_clip(vertices.to(dtype), cameras(23, 17)).requires_grad_()
    seen = rasterise(clip, faces, (23, 17))
    generator = torch.Generator().manual_seed(1)
    values, weights = (torch.rand(2, 17, 23, 3, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    values.requires_grad_()
    neighbours = edge_neighbours(faces) if table else None
    out = blended(values, clip, faces, seen, neighbours=neighbours, backend=backend)
    assert (out != values).any(-1).sum() > 20
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), (values, clip))]


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_kernels_blend_other_outlines(scene: str, table: bool) -> None:
    pytest.importorskip("triton")
    theirs, ours = (blends(scene, torch.float64, name, table=table) for name in ("reference", "triton"))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12 * float(b.abs().max()))


def test_kernels_blend_in_single_precision() -> None:
    pytest.importorskip("triton")
    for a, b in zip(*(blends("faces of pixels", torch.float32, name) for name in ("triton", "reference")), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def shades(scene: str, dtype: torch.dtype, backend: str, *, per_view: bool = False) -> list[torch.Tensor]:
    vertices, faces = SCENES[scene]()
    clip = to_clip(vertices.to(dtype), cameras(23, 17)).requires_grad_()
    face = rasterise(clip, faces, (23, 17)).face
    generator = torch.Generator().manual_seed(1)
    size = (2, len(vertices), 5) if per_view else (len(vertices), 5)
    values = torch.rand(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weights = corner_weights(clip, faces, face, backend=backend)
    out = interpolate(values, faces, face, weights, backend=backend)
    slope = torch.rand(out.shape, generator=generator, dtype=torch.float64).to(dtype)
    return [
        out.detach(),
        weights.corners.detach(),
        *torch.autograd.grad((out * slope).sum(), (clip, values)),
        weights.front,
    ]


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_kernels_interpolate_beside_the_pixel(scene: str, per_view: bool) -> None:
    pytest.importorskip("triton")
    theirs, ours = (shades(scene, torch.float64, name, per_view=per_view) for name in ("reference", "triton"))
    assert torch.equal(ours.pop(), theirs.pop())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12 * float(b.abs().max()))


def test_kernels_interpolate_in_single_precision() -> None:
    pytest.importorskip("triton")
    for a, b in zip(*(shades("soup", torch.float32, name) for name in ("triton", "reference")), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5 * float(b.float().abs().max()))


def draws(scene: str, dtype: torch.dtype, backend: str, **options) -> list[torch.Tensor]:
    vertices, faces = SCENES[scene]()
    moving = vertices.to(dtype).requires_grad_()
    drawn = render_mesh(moving, faces, cameras(23, 17), outlines=False, backend=backend, **options)
    picture = torch.cat([drawn.mask[..., None], drawn.depth[..., None], drawn.normal], -1)
    slope = torch.rand(picture.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    return [picture.detach(), torch.autograd.grad((picture * slope).sum(), moving)[0]]


@pytest.mark.parametrize(("normals", "towards_viewer"), [("face", True), ("vertex", False)])
@pytest.mark.parametrize("scene", SCENES)
def test_kernels_draw_another_picture(scene: str, normals: str, towards_viewer: bool) -> None:
    pytest.importorskip("triton")
    options = {"towards_viewer": towards_viewer, "normals": normals}
    theirs, ours = (draws(scene, torch.float64, name, **options) for name in ("reference", "triton"))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12 * float(b.abs().max()))


def test_kernels_draw_in_single_precision() -> None:
    pytest.importorskip("triton")
    for a, b in zip(*(draws("soup", torch.float32, name) for name in ("triton", "reference")), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_vertices_in_no_view_and_views_of_no_vertices() -> None:
    pytest.importorskip("triton")
    for count in (0, 3):
        places = torch.rand(count, 3, requires_grad=True)
        clip = to_clip(places, cameras(5, 4), backend="triton")
        assert torch.allclose(clip, to_clip(places, cameras(5, 4), backend="reference"))
        assert torch.autograd.grad(clip.sum(), places)[0].shape == (count, 3)


def test_nothing_to_blend() -> None:
    pytest.importorskip("triton")
    clip = torch.zeros(1, 0, 4)
    seen = rasterise(clip, torch.zeros(0, 3, dtype=torch.int64), (5, 4))
    values = torch.rand(1, 4, 5, 2)
    assert torch.equal(blended(values, clip, torch.zeros(0, 3, dtype=torch.int64), seen, backend="triton"), values)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [30, 400])
def test_blends_at_the_size_of_training_on_cuda(n: int, device: str) -> None:
    vertices, faces = (value.to(device) for value in ball(n))
    clip = to_clip(vertices, cameras(518, 518)).requires_grad_()
    seen = rasterise(clip, faces, (518, 518))
    generator = torch.Generator(device).manual_seed(1)
    values, weights = (torch.rand(2, 518, 518, 5, generator=generator, device=device).double() for _ in range(2))
    values.requires_grad_()
    theirs, ours = (blended(values, clip, faces, seen, backend=name) for name in ("reference", "triton"))
    assert (theirs != values).any(-1).sum() > 2000
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    grads = (torch.autograd.grad((out * weights).sum(), (values, clip)) for out in (ours, theirs))
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9 * float(b.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("normals", ["face", "vertex"])
@pytest.mark.parametrize("n", [30, 400])
def test_pictures_at_the_size_of_training_on_cuda(n: int, normals: str, device: str) -> None:
    vertices, faces = (value.to(device) for value in ball(n))
    results = []
    for backend in ("reference", "auto"):
        moving = vertices.detach().requires_grad_()
        clip = to_clip(moving, cameras(518, 518), backend=backend)
        face = rasterise(clip, faces, (518, 518)).face
        weights = corner_weights(clip, faces, face, backend=backend)
        places = interpolate(moving, faces, face, weights, backend=backend)
        drawn = render_mesh(moving, faces, cameras(518, 518), normals=normals, outlines=False, backend=backend)
        parts = [drawn.depth, *drawn.normal.unbind(-1), *places.unbind(-1)]
        loss = sum((k + 1) * part.square().sum() for k, part in enumerate(parts))
        results.append([*(part.detach() for part in parts), torch.autograd.grad(loss, moving)[0]])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10 * float(b.abs().max()))
