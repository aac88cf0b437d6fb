"""Differentiable rendering: interpolation and edge blending against finite differences, known areas and finer sampling."""

import math

import pytest
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.errors import BadArgument
from shapecodec.ops.rasterise import rasterise
from shapecodec.render.differentiable import blended, corner_normals, corner_weights, interpolate, render_mesh, to_clip
from shapecodec.render.silhouette import BOUNDARY, SEVERAL, edge_neighbours

SQUARE = torch.tensor([[0, 1, 2], [2, 1, 3]])


def window(width: int, height: int) -> Camera:
    """A camera that looks down -z, in whose picture a unit is a pixel and (0, 0) the lower left corner."""
    return Camera.orthographic((width / 2, height / 2, 50), (width / 2, height / 2, 0), height / 2, (width, height))


def rectangle(left: float, bottom: float, right: float, top: float, z: float = 0.0) -> torch.Tensor:
    corners = [[left, bottom, z], [right, bottom, z], [left, top, z], [right, top, z]]
    return torch.tensor(corners, dtype=torch.float64)


def disc(radius: float, segments: int, rings: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Rings of triangles around the origin, counter-clockwise towards +z."""
    angle = torch.arange(segments, dtype=torch.float64) * (2 * math.pi / segments) + 0.1
    rim = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1)
    vertices = torch.cat([torch.zeros(1, 3).double(), *(rim * (radius * (k + 1) / rings) for k in range(rings))])
    k = torch.arange(segments)
    after = (k + 1) % segments
    faces = [torch.stack([torch.zeros_like(k), 1 + k, 1 + after], 1)]
    for ring in range(rings - 1):
        inner, outer = 1 + ring * segments, 1 + (ring + 1) * segments
        faces += [torch.stack([inner + k, outer + k, outer + after], 1)]
        faces += [torch.stack([inner + k, outer + after, inner + after], 1)]
    return vertices, torch.cat(faces)


def ball(segments: int = 24, rings: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed sphere of radius 0.5 with poles on y."""
    polar = torch.arange(1, rings, dtype=torch.float64) * (math.pi / rings)
    around = torch.arange(segments, dtype=torch.float64) * (2 * math.pi / segments)
    p, q = torch.meshgrid(polar, around, indexing="ij")
    middle = torch.stack([p.sin() * q.sin(), p.cos(), p.sin() * q.cos()], -1).reshape(-1, 3)
    vertices = torch.cat([middle, torch.tensor([[0.0, 1, 0], [0, -1, 0]]).double()]) * 0.5
    k = torch.arange(segments)
    after, north, south = (k + 1) % segments, len(vertices) - 2, len(vertices) - 1
    faces = [torch.stack([torch.full_like(k, north), k, after], 1)]
    last = (rings - 2) * segments
    faces += [torch.stack([torch.full_like(k, south), last + after, last + k], 1)]
    for ring in range(rings - 2):
        upper, lower = ring * segments, (ring + 1) * segments
        faces += [torch.stack([upper + k, lower + k, lower + after], 1)]
        faces += [torch.stack([upper + k, lower + after, upper + after], 1)]
    return vertices, torch.cat(faces)


def soup(faces: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(faces, 1, 3, generator=generator) - 0.5 + torch.rand(faces, 3, 3, generator=generator) - 0.5
    return corners.reshape(-1, 3).double(), torch.arange(3 * faces).reshape(-1, 3)


VIEWS = [Camera.perspective(orbit(20, 30, 2.5), (0, 0, 0), 40.0, (9, 7)), window(9, 7)]


def test_weights_point_beside_the_pixel():
    vertices, faces = soup(40, seed=1)
    clip = to_clip(vertices, VIEWS[:1])
    face = rasterise(clip, faces, (9, 7)).face
    weights = corner_weights(clip, faces, face)
    points = interpolate(vertices, faces, face, weights)
    b, i, j = (face >= 0).nonzero(as_tuple=True)
    assert len(b) > 20
    pixels = VIEWS[0].project(points[b, i, j])[0]
    torch.testing.assert_close(pixels, torch.stack([j + 0.5, i + 0.5], 1).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(weights.corners.sum(-1), (face >= 0).double())


def test_interpolation_against_finite_differences():
    vertices, faces = soup(40, seed=2)
    clip = to_clip(vertices, VIEWS[:1]).requires_grad_()
    face = rasterise(clip, faces, (9, 7)).face
    assert (face >= 0).sum() > 15
    values = torch.rand(len(vertices), 2, generator=torch.Generator().manual_seed(3)).double().requires_grad_()

    def picture(clip, values):
        return interpolate(values, faces, face, corner_weights(clip, faces, face))

    assert torch.autograd.gradcheck(picture, (clip, values), eps=1e-7, atol=1e-5)


def test_blending_against_finite_differences():
    # Vertices are moved by 1e-6 of a pixel: what each centre sees stays, and the picture is smooth in between.
    vertices, faces = soup(5, seed=4)
    vertices = vertices * 6 + torch.tensor([4.5, 3.5, 0.0])
    camera = window(9, 7)
    seen = rasterise(to_clip(vertices, [camera]), faces, (9, 7))
    values = torch.rand(1, 7, 9, 1, generator=torch.Generator().manual_seed(5)).double().requires_grad_()

    def picture(vertices, values):
        return blended(values, to_clip(vertices, [camera]), faces, seen)

    assert (picture(vertices, values) != values).sum() > 5
    assert torch.autograd.gradcheck(picture, (vertices.clone().requires_grad_(), values), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 0.5, 0.77, 0.99, 3.4])
def test_square_moves_and_its_mask_does_not(shift, dtype):
    # Lower and upper sides between rows of centres: the sides' shares are exact, and so are the sums.
    camera = window(16, 12)
    moved = rectangle(3 + shift, 2, 8.25 + shift, 9).to(dtype).requires_grad_()
    mask = render_mesh(moved, SQUARE, [camera]).mask[0]
    expected = torch.zeros(16, dtype=torch.float64)
    for j in range(16):
        expected[j] = max(0.0, min(j + 1, 8.25 + shift) - max(j, 3 + shift))
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(mask.sum(0).double(), expected * 7, atol=tolerance * 7, rtol=0)
    gradient = torch.autograd.grad(mask.sum(), moved)[0]
    # The area is 7 pixels times the width; each side has two of its corners.
    sides = torch.tensor([-7.0, 7.0, -7.0, 7.0]).to(dtype) / 2
    torch.testing.assert_close(gradient[:, 0].view(2, 2).sum(0), sides[:2] * 2, atol=1e-3, rtol=0)
    centre = torch.autograd.grad((render_mesh(moved, SQUARE, [camera]).mask[0].sum(0) * torch.arange(16)).sum(), moved)[
        0
    ]
    torch.testing.assert_close(centre[:, 0].sum(), moved.new_tensor(7 * 5.25), atol=7.0, rtol=0)


def test_dot_smaller_than_a_pixel():
    corners = rectangle(4.3, 3.3, 4.7, 3.8).requires_grad_()
    mask = render_mesh(corners, SQUARE, [window(9, 7)]).mask
    torch.testing.assert_close(mask.sum(), corners.new_tensor(0.4 * 0.5), atol=1e-9, rtol=0)
    gradient = torch.autograd.grad(mask.sum(), corners)[0]
    assert float(gradient[[1, 3], 0].sum()) == pytest.approx(0.5, abs=1e-6)
    assert float(gradient[[2, 3], 1].sum()) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("rings", [1, 40], ids=["faces of many pixels", "faces of a third of a pixel"])
def test_mask_against_finer_sampling(rings):
    vertices, faces = disc(9.3, 13 if rings == 1 else 90, rings)
    vertices = vertices + torch.tensor([15.63, 12.21, 0.0])
    camera = window(32, 24)
    mask = render_mesh(vertices, faces, [camera]).mask[0]
    fine = render_mesh(vertices, faces, [camera.enlarged(16)], outlines=False).mask[0]
    share = fine.view(24, 16, 32, 16).mean((1, 3))
    rough = render_mesh(vertices, faces, [camera], outlines=False).mask[0]
    error, unblended = (mask - share).abs(), (rough - share).abs()
    assert float(error.mean()) < 0.15 * float(unblended.mean())
    assert float(error.max()) < 0.3
    assert float(mask.sum()) == pytest.approx(float(share.sum()), rel=2e-3)


def test_outline_of_a_closed_surface_against_finer_sampling():
    vertices, faces = ball()
    camera = Camera.perspective(orbit(20, 30, 2.5), (0, 0, 0), 40.0, (40, 30))
    mask = render_mesh(vertices, faces, [camera]).mask[0]
    share = (
        render_mesh(vertices, faces, [camera.enlarged(16)], outlines=False).mask[0].view(30, 16, 40, 16).mean((1, 3))
    )
    assert float((mask - share).abs().max()) < 0.25
    assert float(mask.sum()) == pytest.approx(float(share.sum()), rel=3e-3)


def test_edge_inside_a_surface_is_blended():
    generator = torch.Generator().manual_seed(6)
    vertices, faces = disc(60.0, 7, 5)
    vertices = vertices + torch.tensor([4.0, 3.0, 0.0])
    colours = torch.rand(len(vertices), 3, generator=generator).double()
    clip = to_clip(vertices, [window(9, 7)])
    seen = rasterise(clip, faces, (9, 7))
    assert len(seen.face.unique()) > 3
    picture = interpolate(colours, faces, seen.face, corner_weights(clip, faces, seen.face))
    assert torch.equal(blended(picture, clip, faces, seen), picture)


def test_outline_before_another_surface():
    # A near square over a far one of another depth: the seam is blended although the mask is 1 everywhere.
    far, near = rectangle(-5, -5, 20, 20, z=-1.0), rectangle(2.8, -5, 20, 20, z=1.0)
    vertices = torch.cat([far, near]).requires_grad_()
    picture = render_mesh(vertices, torch.cat([SQUARE, SQUARE + 4]), [window(8, 6)])
    assert (picture.mask == 1).all()
    expected = torch.full((6, 8), 49.0, dtype=torch.float64)
    expected[:, :2], expected[:, 2] = 51.0, 0.8 * 51 + 0.2 * 49
    torch.testing.assert_close(picture.depth[0], expected)
    gradient = torch.autograd.grad(picture.depth.sum(), vertices)[0]
    assert float(gradient[[4, 6], 0].sum()) == pytest.approx(2 * 6)
    assert float(gradient[:4, 0].abs().sum()) == pytest.approx(0, abs=1e-9)


def test_disc_does_not_reach_its_target():
    vertices, faces = disc(4.5, 30, 2)
    camera = window(24, 18)
    target = render_mesh(vertices * 1.3 + torch.tensor([13.4, 10.2, 0.0]), faces, [camera]).mask
    place = torch.tensor([9.0, 7.0, 0.0], dtype=torch.float64, requires_grad=True)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [place], "lr": 0.5}, {"params": [scale], "lr": 0.05}], betas=(0.8, 0.9))
    neighbours = edge_neighbours(faces)
    for step in range(30):
        mask = render_mesh(vertices * scale + place, faces, [camera], neighbours=neighbours).mask
        loss = 1 - torch.minimum(mask, target).sum() / torch.maximum(mask, target).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group, rate in zip(optimiser.param_groups, (0.5, 0.05), strict=True):
            group["lr"] = rate * (1 - step / 30)
    assert float(loss.detach()) < 0.02
    assert place.tolist()[:2] == pytest.approx([13.4, 10.2], abs=0.05)
    assert float(scale.detach()) == pytest.approx(1.3, abs=0.01)


def test_floor_under_the_camera_has_another_depth():
    camera = Camera.perspective((0.0, 1.0, 0.0), (0.0, 1.0, -1.0), 90.0, (16, 12))
    floor = torch.tensor([[-1e3, 0, 1e3], [1e3, 0, 1e3], [0.0, 0, -2e3]], dtype=torch.float64, requires_grad=True)
    picture = render_mesh(floor, torch.tensor([[0, 1, 2]]), [camera], outlines=False)
    below = (torch.arange(6, 12) + 0.5 - 6) / 6  # of the tangent of half the field of view, which is 1
    torch.testing.assert_close(picture.depth[0, 6:].detach(), (1 / below)[:, None].expand(6, 16).double())
    gradient = torch.autograd.grad(picture.depth[0, 9].sum(), floor)[0]
    assert float(gradient[:, 1].sum()) == pytest.approx(-16 / float(below[3]))


@pytest.mark.parametrize("kind", ["face", "vertex"])
def test_winding_shows_where_it_should_not(kind):
    vertices, faces = ball()
    options = {"normals": kind, "outlines": False}
    camera = Camera.perspective(orbit(20, 30, 2.5), (0, 0, 0), 40.0, (20, 15))
    outward = render_mesh(vertices, faces, [camera], **options).normal
    inward = render_mesh(vertices, faces.flip(1), [camera], **options).normal
    turned = render_mesh(vertices, faces.flip(1), [camera], **options, towards_viewer=True)
    seen = turned.mask[..., None] > 0
    torch.testing.assert_close(outward, -inward)
    torch.testing.assert_close(turned.normal, outward)
    assert float(torch.where(seen, turned.normal, 1.0)[..., 2].min()) > (0.0 if kind == "face" else -0.2)
    torch.testing.assert_close(turned.normal.norm(dim=-1), turned.mask)
    # A sphere's normals point away from its centre: the view frame's, and rounded by facets of 15 degrees.
    points = turned.depth  # only the nearest point's normal is looked at
    i, j = divmod(int(torch.where(seen[0, ..., 0], points[0], 9.0).argmin()), 20)
    assert float(turned.normal[0, i, j, 2]) > 0.95


def test_corner_normals_are_the_operation_s():
    from shapecodec.ops.vertex_normals import vertex_normals

    vertices, faces = ball()
    torch.testing.assert_close(corner_normals(vertices.float(), faces), vertex_normals(vertices.float(), faces))


def test_views_disturb_each_other():
    vertices, faces = ball()
    cameras = [Camera.perspective(orbit(yaw, 10, 2.0), (0, 0, 0.1), 40.0, (14, 11)) for yaw in (0, 100, 200)]
    vertices.requires_grad_()
    generator = torch.Generator().manual_seed(7)
    weight = torch.rand(3, 11, 14, 3, generator=generator)

    def loss(picture, views):
        return ((picture.normal + picture.depth[..., None] + picture.mask[..., None]) * weight[views]).sum()

    together = torch.autograd.grad(loss(render_mesh(vertices, faces, cameras), slice(0, 3)), vertices)[0]
    alone = sum(
        torch.autograd.grad(loss(render_mesh(vertices, faces, [c]), slice(k, k + 1)), vertices)[0]
        for k, c in enumerate(cameras)
    )
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("kind", ["face", "vertex"])
def test_gradient_that_is_not_finite(kind):
    # Faces without area, needles, corners behind the camera, coincident faces, and nothing in sight of the second camera.
    vertices, faces = soup(60, seed=8)
    vertices[1], vertices[4] = vertices[0], vertices[3] + 1e-9
    faces = torch.cat([faces, faces[5:9], torch.tensor([[7, 7, 7], [8, 9, 8]])])
    cameras = [
        Camera.perspective((0.1, 0, 0.2), (0, 0, -1), 80.0, (24, 18)),
        Camera.perspective((0, 0, 9), (0, 0, 20), 30.0, (24, 18)),
    ]
    for dtype in (torch.float32, torch.float64):
        moving = vertices.to(dtype).requires_grad_()
        picture = render_mesh(moving, faces, cameras, normals=kind)
        assert float(picture.mask[0].detach().mean()) > 0.5
        assert (picture.mask[1] == 0).all()
        assert (picture.depth[1] == 0).all()
        loss = sum(part.square().sum() for part in picture[:3])
        assert torch.isfinite(torch.autograd.grad(loss, moving)[0]).all()


def test_mesh_without_faces():
    vertices = torch.zeros(3, 3, requires_grad=True)
    picture = render_mesh(vertices, torch.zeros(0, 3, dtype=torch.int64), VIEWS[:1])
    assert picture.normal.shape == (1, 7, 9, 3)
    loss = sum(part.sum() for part in picture[:3])
    assert float(loss.detach()) == 0
    assert (torch.autograd.grad(loss, vertices)[0] == 0).all()


def test_neighbour_of_an_edge():
    # Two faces share (1, 2), three share (0, 1), all other edges have one.
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [1, 0, 4], [0, 5, 1]])
    expected = [
        [1, BOUNDARY, SEVERAL],
        [BOUNDARY, 0, BOUNDARY],
        [BOUNDARY, BOUNDARY, SEVERAL],
        [BOUNDARY, SEVERAL, BOUNDARY],
    ]
    assert edge_neighbours(faces).tolist() == expected
    assert (edge_neighbours(ball()[1]) >= 0).all()
    assert edge_neighbours(faces[:0]).shape == (0, 3)


def test_cameras_of_two_sizes():
    with pytest.raises(BadArgument, match="2 image sizes"):
        render_mesh(torch.zeros(3, 3), torch.zeros(1, 3).long(), [window(4, 4), window(5, 4)])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["face", "vertex"])
@pytest.mark.parametrize("segments", [40, 700])
def test_picture_on_the_device_is_another(kind, segments):
    vertices, faces = ball(segments, segments // 2)
    cameras = [Camera.perspective(orbit(yaw, 10, 2.0), (0, 0, 0.1), 40.0, (518, 518)) for yaw in (0, 100)]
    pictures, gradients = [], []
    for device in ("cpu", "cuda"):
        moving = vertices.to(device).requires_grad_()
        picture = render_mesh(moving, faces.to(device), cameras, normals=kind)
        loss = picture.mask.sum() + picture.depth.sum() + picture.normal.square().sum()
        gradients.append(torch.autograd.grad(loss, moving)[0].cpu())
        pictures.append([part.detach().cpu() for part in (*picture[:3], *picture.seen)])
    for first, second in zip(*pictures, strict=True):
        torch.testing.assert_close(first, second)
    torch.testing.assert_close(*gradients)
