"""Rasterise: the reference against rays in exact arithmetic, the fill rule, cut faces; every backend against the reference."""

from fractions import Fraction

import pytest
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.errors import BadArgument
from shapecodec.ops.rasterise import rasterise

BACKENDS = ["reference", "cpu", "triton"]
PERSPECTIVE = Camera.perspective(orbit(20, 30, 2.5), (0, 0, 0), 30.0, (37, 29))
ORTHOGRAPHIC = Camera.orthographic(orbit(20, 30, 2.5), (0, 0, 0), 0.6, (37, 29))


def to_clip(vertices: torch.Tensor, *cameras: Camera) -> torch.Tensor:
    matrices = torch.stack([camera.projection @ camera.view for camera in cameras])
    return torch.nn.functional.pad(vertices.double(), (0, 1), value=1.0) @ matrices.mT


def soup(faces: int, size: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = (
        torch.rand(faces, 1, 3, generator=generator) - 0.5 + size * (torch.rand(faces, 3, 3, generator=generator) - 0.5)
    )
    return corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3)


def flat(pixels: list[tuple[float, float]] | torch.Tensor, size: tuple[int, int], z: float = 0.0) -> torch.Tensor:
    """(1, V, 4) clip coordinates whose pixels are given."""
    pixels = torch.as_tensor(pixels, dtype=torch.float64)
    ndc = (pixels / torch.tensor(size) * 2 - 1) * torch.tensor([1.0, -1.0])
    return torch.cat([ndc, torch.tensor([[z, 1.0]]).expand(len(ndc), 2)], 1)[None]


def covered(clip: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], backend: str) -> torch.Tensor:
    """(H, W) how many faces cover each centre, each drawn alone."""
    return sum((rasterise(clip, face[None], size, backend=backend).face[0] == 0).int() for face in faces)


def nearest_by_rays(clip: torch.Tensor, faces: torch.Tensor, size: tuple[int, int]) -> tuple[list, list]:
    """Every centre's ray against every face, in homogeneous coordinates and float64: no division before the last one.

    Returns the faces in sight and how far, relative to its corners, the decision was from falling the other way.
    """
    width, height = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ray = torch.stack([x / width * 2 - 1, 1 - y / height * 2, torch.ones_like(x)], -1).reshape(-1, 1, 3).double()
    corners = clip[faces]
    flat_corners = corners[..., [0, 1, 3]]
    crosses = torch.linalg.cross(flat_corners.roll(-1, 1), flat_corners.roll(-2, 1))
    weights = torch.einsum("pqk,fck->pfc", ray, crosses)  # of the point that the ray meets, up to a factor
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total == 0, torch.inf, total)
    z, w = (weights * corners[..., 2]).sum(-1), (weights * corners[..., 3]).sum(-1)
    depth = z / w
    margin = torch.stack([*weights.unbind(-1), w, 1 - depth, 1 + depth], -1).amin(-1)
    depth = torch.where((margin >= 0) & (total[..., 0] != 0), depth, torch.inf)
    order = depth.sort(1)
    face = torch.where(order.values[:, 0] < torch.inf, order.indices[:, 0], -1)
    doubt = margin.abs().amin(1)
    gap = (order.values[:, 1] - order.values[:, 0]).nan_to_num(1.0, 1.0)
    return face.view(height, width), torch.minimum(doubt, gap).view(height, width)


@pytest.mark.parametrize("camera", [PERSPECTIVE, ORTHOGRAPHIC], ids=["perspective", "orthographic"])
@pytest.mark.parametrize("faces", [2, 300])
def test_another_face_than_the_ray_meets(camera, faces):
    vertices, triangles = soup(faces)
    clip, size = to_clip(vertices, camera), (camera.width, camera.height)
    expected, doubt = nearest_by_rays(clip[0], triangles, size)
    found = rasterise(clip, triangles, size, backend="reference").face[0]
    assert (found >= 0).any()
    sure = doubt > 1e-3
    assert sure.float().mean() > 0.5
    assert torch.equal(found[sure].long(), expected[sure])
    assert (found != expected).float().mean() < 0.003


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_faces_that_reach_behind_the_camera(backend):
    # The camera stands inside the soup: a third of the faces has a corner behind it, and the near plane cuts many more.
    camera = Camera.perspective((0.1, 0.0, 0.2), (0.0, 0.1, -8.0), 80.0, (41, 33))
    vertices, triangles = soup(200, size=0.6)
    clip, size = to_clip(vertices, camera), (41, 33)
    behind = (clip[0, :, 3] <= 0)[triangles]
    assert (behind.any(1) & ~behind.all(1)).sum() > 20
    expected, doubt = nearest_by_rays(clip[0], triangles, size)
    found = rasterise(clip, triangles, size, backend=backend).face[0]
    assert (expected >= 0).float().mean() > 0.5
    sure = doubt > 1e-4
    assert sure.float().mean() > 0.5
    assert torch.equal(found[sure].long(), expected[sure])
    assert (found != expected).float().mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_floor_that_passes_under_the_camera(backend):
    camera = Camera.perspective((0.0, 1.0, 0.0), (0.0, 1.0, -1.0), 90.0, (16, 12))
    floor = torch.tensor([[-1e3, 0, 1e3], [1e3, 0, 1e3], [0.0, 0, -2e3]])
    found = rasterise(to_clip(floor, camera), torch.tensor([[0, 1, 2]]), (16, 12), backend=backend)
    assert (found.face[0, 6:] == 0).all()
    assert (found.face[0, :5] == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_nearer_than_the_near_plane_is_drawn(backend):
    # One triangle from z/w = -3 at the left to 3 at the right: the middle third is in the visible volume.
    clip = torch.tensor([[[-1.0, -9, -3, 1], [-1, 9, -3, 1], [1, -9, 3, 1], [1, 9, 3, 1]]])
    found = rasterise(clip, torch.tensor([[0, 1, 2], [2, 1, 3]]), (24, 4), backend=backend).face[0]
    assert ((found >= 0).int() == torch.tensor([0] * 8 + [1] * 8 + [0] * 8)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fan_leaves_a_gap_or_hits_twice(backend):
    # The hub, some rim corners and many points of the spokes are centres of pixels.
    rim = [(12.5, 4.5), (12.5, 12.5), (4.5, 12.5), (-3.5, 12.5), (-3.5, 4.5), (-3.5, -2.5), (4.5, -3.5), (9.5, -0.5)]
    clip = flat([(4.5, 4.5), *rim], (9, 9))
    fan = torch.tensor([[0, 1 + k, 1 + (k + 1) % 8] for k in range(8)])
    assert (covered(clip, fan, (9, 9), backend) == 1).all()
    if backend != "triton":  # its interpreter is slow
        assert (covered(clip, fan.flip(1), (9, 9), backend) == 1).all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("step", [0.5, 0.37])
def test_mesh_leaves_a_gap_or_hits_twice(backend, step):
    # A jittered lattice of triangles over 12 x 10 pixels; at a step of 1/2 without jitter, corners lie on centres.
    generator = torch.Generator().manual_seed(1)
    n = 40
    y, x = torch.meshgrid(torch.arange(n + 1.0), torch.arange(n + 1.0), indexing="ij")
    pixels = torch.stack([x, y], -1) * step - 1.0
    if step != 0.5:
        pixels += (torch.rand(pixels.shape, generator=generator) - 0.5) * 0.3 * step
    k = torch.arange(n * n)
    corner = k // n * (n + 1) + k % n
    triangles = torch.stack([corner, corner + 1, corner + n + 1, corner + n + 1, corner + 1, corner + n + 2], 1)
    turned = triangles.view(-1, 3)[torch.randperm(2 * n * n, generator=generator)]
    clip = flat(pixels.view(-1, 2), (12, 10))
    # A face's depth is its own, so that the nearest of all but one face tells of a second hit.
    once = rasterise(clip, turned, (12, 10), backend=backend).face[0]
    assert (once >= 0).all()
    rest = torch.ones(len(turned), dtype=torch.bool)
    rest[once.flatten().unique().long()] = False
    assert (rasterise(clip, turned[rest], (12, 10), backend=backend).face == -1).all()
    reversed_ids = len(turned) - 1 - rasterise(clip, turned.flip(0), (12, 10), backend=backend).face[0]
    assert torch.equal(reversed_ids, once)  # a second hit of equal depth would go to the other face


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_coincident_faces_the_lowest(backend):
    clip = flat([(-1, -1), (5, -1), (-1, 5), (5, 5)], (4, 4))
    faces = torch.tensor([[1, 3, 2], [2, 0, 1], [0, 1, 2], [1, 2, 0], [1, 2, 3]])
    found = rasterise(clip, faces, (4, 4), backend=backend)
    assert set(found.face.unique().tolist()) == {0, 1}
    torch.testing.assert_close(found.depth, torch.zeros(1, 4, 4), atol=1e-8, rtol=0)


def test_edge_function_overflows():
    # A triangle as large as the lattice allows, whose long edge passes 1/300 pixel beside centres.
    reach = 100_000.0
    clip = flat([(-reach, -reach + 0.0034), (reach, reach + 0.0034), (-reach, reach)], (6, 6))
    found = rasterise(clip, torch.tensor([[0, 1, 2]]), (6, 6), backend="cpu").face[0]
    edge = Fraction(round(0.0034 * 4096), 4096)
    expected = [[int(Fraction(2 * i + 1, 2) > Fraction(2 * j + 1, 2) + edge) - 1 for j in range(6)] for i in range(6)]
    assert found.tolist() == expected
    assert torch.equal(found, rasterise(clip, torch.tensor([[0, 1, 2]]), (6, 6), backend="reference").face[0])


def assert_same(found, want):
    assert torch.equal(found.face, want.face)
    assert torch.equal(found.depth, want.depth)


@pytest.mark.parametrize(("faces", "size"), [(1, 3.0), (400, 0.3), (3000, 0.02), (30, 2.0)])
def test_cpu_sees_another_face_than_the_reference(faces, size):
    vertices, triangles = soup(faces, size, seed=faces)
    inside = Camera.perspective((0.1, 0.0, 0.2), (0.0, 0.1, -1.0), 70.0, (61, 47))
    clip = to_clip(vertices, PERSPECTIVE, inside, ORTHOGRAPHIC)
    want = rasterise(clip, triangles, (61, 47), backend="reference")
    assert (want.face >= 0).any()
    assert_same(rasterise(clip, triangles, (61, 47), backend="cpu"), want)
    assert_same(rasterise(clip.float(), triangles, (61, 47)), rasterise(clip.float().double(), triangles, (61, 47)))


@pytest.mark.parametrize(("faces", "size"), [(1, 3.0), (150, 0.1), (7, 1.5)])
def test_kernels_see_another_face_than_the_reference(faces, size):
    vertices, triangles = soup(faces, size, seed=faces)
    inside = Camera.perspective((0.1, 0.0, 0.2), (0.0, 0.1, -1.0), 70.0, (13, 11))
    clip = to_clip(vertices, PERSPECTIVE, inside)
    want = rasterise(clip, triangles, (13, 11), backend="reference")
    assert (want.face >= 0).any()
    assert_same(rasterise(clip, triangles, (13, 11), backend="triton"), want)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("faces", "size"), [(1, 3.0), (300, 1.5), (20_000, 0.05), (500_000, 0.005), (4_000_000, 0.002)]
)
@pytest.mark.parametrize("pixels", [(518, 518), (641, 203)])
def test_kernels_against_reference_at_size(faces, size, pixels):
    vertices, triangles = soup(faces, size, seed=faces)
    inside = Camera.perspective((0.1, 0.0, 0.2), (0.0, 0.1, -1.0), 70.0, pixels)
    clip, triangles = to_clip(vertices, PERSPECTIVE, inside).float().cuda(), triangles.cuda()
    want = rasterise(clip, triangles, pixels, backend="reference")
    assert (want.face >= 0).any()
    assert_same(rasterise(clip, triangles, pixels, backend="triton"), want)
    if faces <= 500_000:
        on_cpu = rasterise(clip.cpu(), triangles.cpu(), pixels, backend="cpu")
        assert torch.equal(want.face.cpu(), on_cpu.face)


def test_views_disturb_each_other():
    vertices, triangles = soup(100)
    cameras = [PERSPECTIVE, ORTHOGRAPHIC, Camera.perspective((0, 0, 0.3), (0, 0, -1), 70.0, (37, 29))]
    together = rasterise(to_clip(vertices, *cameras), triangles, (37, 29))
    for view, camera in enumerate(cameras):
        alone = rasterise(to_clip(vertices, camera), triangles, (37, 29))
        assert torch.equal(alone.face[0], together.face[view])
        assert torch.equal(alone.depth[0], together.depth[view])


def test_result_depends_on_threads():
    vertices, triangles = soup(500)
    clip, threads = to_clip(vertices, PERSPECTIVE), torch.get_num_threads()
    pictures = []
    for count in (1, 5):
        torch.set_num_threads(count)
        pictures.append(rasterise(clip, triangles, (64, 64)))
    torch.set_num_threads(threads)
    assert_same(*pictures)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_see(backend):
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    assert (rasterise(torch.zeros(2, 0, 4), nothing, (5, 3), backend=backend).face == -1).all()
    vertices, triangles = soup(5)
    behind = to_clip(vertices + torch.tensor([0.0, 0.0, 9.0]), Camera.perspective((0, 0, 1), (0, 0, 0), 60.0, (5, 3)))
    empty = rasterise(behind, triangles, (5, 3), backend=backend)
    assert empty.face.shape == (1, 3, 5)
    assert (empty.face == -1).all()
    assert (empty.depth == torch.inf).all()
    assert rasterise(behind[:0], triangles, (5, 3), backend=backend).face.shape == (0, 3, 5)


@pytest.mark.parametrize(
    ("clip", "faces", "size"),
    [
        (torch.zeros(3, 4), torch.zeros(1, 3).long(), (4, 4)),
        (torch.zeros(1, 3, 3), torch.zeros(1, 3).long(), (4, 4)),
        (torch.zeros(1, 3, 4).long(), torch.zeros(1, 3).long(), (4, 4)),
        (torch.zeros(1, 3, 4), torch.zeros(1, 3), (4, 4)),
        (torch.zeros(1, 3, 4), torch.tensor([[0, 1, 3]]), (4, 4)),
        (torch.zeros(1, 3, 4), torch.tensor([[0, 1, -1]]), (4, 4)),
        (torch.full((1, 3, 4), torch.nan), torch.zeros(1, 3).long(), (4, 4)),
        (torch.zeros(1, 3, 4), torch.zeros(1, 3).long(), (0, 4)),
        (torch.zeros(1, 3, 4), torch.zeros(1, 3).long(), (4, 20000)),
    ],
)
def test_arguments_that_cannot_be_served(clip, faces, size):
    with pytest.raises(BadArgument):
        rasterise(clip, faces, size)
