"""udf_blocks: the reference against brute force over every voxel and triangle, the fast paths against the reference."""

import numba
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.udf_blocks import udf_blocks

# Triton's interpreter turns loaded loop bounds into integers in a way that numpy warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def segment_distance(points, start, end):
    """Distances (Q,) of points to segments; an independent formula, by projection and clamping."""
    edge = end - start
    position = ((points - start) * edge).sum(-1) / (edge * edge).sum(-1).clamp_min(1e-300)
    return (start + position.clamp(0, 1)[..., None] * edge - points).norm(dim=-1)


def projects_inside(points, corners):
    """Whether the foot of each point's perpendicular lies in the triangle."""
    a, b, c = corners
    normal = torch.linalg.cross(b - a, c - a)
    turns = [torch.linalg.cross((e - s).expand_as(points), points - s) @ normal for s, e in ((a, b), (b, c), (c, a))]
    return (torch.stack(turns) > 0).all(0)


def brute_force(vertices, faces, resolution):
    """Dense (N, N, N) float64 distances in voxels: plane distance where the projection is inside, else the edges'."""
    axis = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution - 0.5
    points = torch.cartesian_prod(axis, axis, axis)
    best = torch.full((len(points),), float("inf"), dtype=torch.float64)
    for corners in vertices.double()[faces]:
        a, b, c = corners
        found = torch.stack([segment_distance(points, s, e) for s, e in ((a, b), (b, c), (c, a))]).amin(0)
        normal = torch.linalg.cross(b - a, c - a)
        if normal.norm() > 1e-14:
            sides = [
                torch.linalg.cross((e - s).expand_as(points), points - s) @ normal for s, e in ((a, b), (b, c), (c, a))
            ]
            inside = (torch.stack(sides) > 0).all(0)
            found = torch.where(inside, ((points - a) @ normal).abs() / normal.norm(), found)
        best = torch.minimum(best, found)
    return best.reshape(resolution, resolution, resolution) * resolution


def blocks_of(dense):
    """(N, N, N) -> (n, n, n, 8, 8, 8)."""
    n = dense.shape[0] // 8
    return dense.reshape(n, 8, n, 8, n, 8).permute(0, 2, 4, 1, 3, 5)


def assert_field(result, dense, truncation=4.0, activity=4.0):
    """Values and kept blocks agree with dense distances; only a block on the threshold may be there or not."""
    grid, values = result
    blocks = blocks_of(dense)
    kept = torch.zeros(blocks.shape[:3], dtype=torch.bool)
    x, y, z = grid.coords.long().unbind(1)
    kept[x, y, z] = True
    assert int(kept.sum()) == len(grid)
    assert bool((grid.keys().diff() > 0).all())
    closest = blocks.amin((3, 4, 5))
    assert not bool(((kept != (closest < activity)) & ((closest - activity).abs() > 1e-5)).any())
    assert values.dtype == torch.float32 and values.shape == (len(grid), 8, 8, 8)
    expected = (blocks[x, y, z] / truncation).clamp_max(1).float()
    assert not len(grid) or float((values - expected).abs().max()) < 1e-5


def assert_same(ours, theirs, truncation=4.0, activity=4.0, tolerance=2e-5):
    """Two paths agree within `tolerance` voxels; blocks may differ only on the activity threshold."""
    (grid, values), (other, expected) = ours, theirs
    assert grid.resolution == other.resolution
    row = other.lookup(grid.coords)
    both = row >= 0
    if bool(both.any()):
        assert float((values[both] - expected[row[both]]).abs().max()) * truncation < tolerance
    edge = min(activity / truncation, 1.0) - tolerance
    lost = other.lookup(grid.coords) < 0, grid.lookup(other.coords) < 0
    for field, missing in zip((values, expected), lost, strict=True):
        assert not bool(missing.any()) or float(field[missing].amin()) >= edge


def tilted(points):
    """Points rotated by a fixed rotation, so that nothing lies on voxel planes."""
    turn, _ = torch.linalg.qr(torch.tensor([[0.8, 0.1, 0.4], [-0.3, 0.9, 0.2], [0.1, -0.5, 0.7]]))
    return points @ turn.T


def bumpy(rings):
    """A closed bumpy surface with 2 * rings^2 triangles."""
    u, v = torch.meshgrid(torch.arange(rings + 1.0) / rings, torch.arange(rings + 1.0) / rings, indexing="ij")
    polar, turn = torch.pi * u, 2 * torch.pi * v
    radius = 0.3 + 0.05 * torch.sin(5 * polar) * torch.cos(3 * turn)
    xyz = torch.stack([polar.sin() * turn.cos(), polar.cos(), polar.sin() * turn.sin()], -1) * radius[..., None]
    corner = (torch.arange(rings)[:, None] * (rings + 1) + torch.arange(rings)).reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + 1, corner + rings + 2], 1),
            torch.stack([corner, corner + rings + 2, corner + rings + 1], 1),
        ]
    )
    return tilted(xyz.reshape(-1, 3)).contiguous(), faces


def soup(count, scale, seed=0):
    """Random triangles of a size, some of them degenerate, some outside the cube."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 3, generator=generator) * 1.2 - 0.6
    corners = centre + (torch.rand(count, 3, 3, generator=generator) - 0.5) * scale
    corners[::7, 2] = corners[::7, 1]  # segments
    corners[::11, 1] = (corners[::11, 0] + corners[::11, 2]) / 2  # collinear
    corners[::13] = corners[::13, :1]  # points
    return corners.reshape(-1, 3).contiguous(), torch.arange(3 * count).reshape(-1, 3)


def one(*corners):
    """A single triangle."""
    return torch.tensor(corners), torch.tensor([[0, 1, 2]])


HARD = {
    "whole_cube": one([-0.5, -0.5, -0.5], [0.5, 0.4, 0.5], [-0.45, 0.5, 0.3]),
    "far_outside_corners": one([-90.0, -80, 0], [70, -60, 0.1], [1, 95, 0.2]),
    "segment_on_a_voxel_plane": one([-0.25, 0.03125, 0.03125], [0.1, 0.03125, 0.03125], [0.1, 0.03125, 0.03125]),
    "point": one([0.1, 0.2, -0.3], [0.1, 0.2, -0.3], [0.1, 0.2, -0.3]),
    "sliver": one([-0.4, -0.4, -0.4], [0.4, 0.39, 0.41], [0.0, 1e-7, 0.005]),
    "needle": one([-0.4, -0.1, 0.0], [0.4, 0.13, 0.01], [0.1, 0.04375, 0.00626]),
    "in_a_corner_block": one([0.49, 0.49, 0.49], [0.5, 0.48, 0.49], [0.48, 0.5, 0.5]),
    "just_outside": one([0.55, 0.1, 0.1], [0.55, 0.2, 0.1], [0.55, 0.1, 0.3]),
    "soup": soup(20, 0.4),
    "small_soup": soup(22, 0.05, seed=1),
}
PATHS = ["reference", "cpu", "triton"]


@pytest.mark.parametrize("backend", PATHS)
@pytest.mark.parametrize("name", HARD)
def test_distances_differ_from_brute_force(name, backend):
    vertices, faces = HARD[name]
    resolution = 24 if "soup" in name else 32  # 24: no power of two
    assert_field(udf_blocks(vertices, faces, resolution, backend=backend), brute_force(vertices, faces, resolution))


@pytest.mark.parametrize("backend", PATHS)
@pytest.mark.parametrize(("truncation", "activity"), [(4.0, 1.5), (2.0, 6.0), (9.5, 3.0)])
def test_truncation_and_activity_confused(backend, truncation, activity):
    vertices, faces = soup(8, 0.3, seed=2)
    result = udf_blocks(vertices, faces, 24, truncation=truncation, activity=activity, backend=backend)
    assert_field(result, brute_force(vertices, faces, 24), truncation, activity)


@pytest.mark.parametrize("backend", PATHS)
def test_nothing_in_reach(backend):
    vertices = torch.tensor([[3.0, 3, 3], [4, 3, 3], [3, 4, 3], [9.0, 1e30, 1e30]])
    for faces in (torch.zeros(0, 3, dtype=torch.int64), torch.tensor([[0, 1, 2], [0, 1, 3]])):
        grid, values = udf_blocks(vertices, faces, 64, backend=backend)
        assert len(grid) == 0 and values.shape == (0, 8, 8, 8) and grid.resolution == 8


@pytest.mark.parametrize("backend", PATHS)
def test_one_block_resolution(backend):
    vertices, faces = soup(5, 0.6, seed=3)
    assert_field(udf_blocks(vertices, faces, 8, backend=backend), brute_force(vertices, faces, 8))


@pytest.mark.parametrize(("backend", "rings", "resolution"), [("cpu", 30, 64), ("triton", 4, 24)])
def test_fast_path_differs_on_a_surface(backend, rings, resolution):
    vertices, faces = bumpy(rings)
    ours = udf_blocks(vertices, faces, resolution, backend=backend)
    assert len(ours[0]) >= 20
    assert_same(ours, udf_blocks(vertices, faces, resolution, backend="reference"))


@pytest.mark.parametrize(("backend", "count"), [("cpu", 3000), ("triton", 100)])
def test_long_lists_in_one_block(backend, count):
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(count, 3, 3, generator=generator) * 0.02 + 0.36  # within reach of a few blocks only
    corners[0] = torch.tensor([[-0.4, 0.3, 0.0], [0.4, 0.0, 0.2], [0.1, -0.4, 0.3]])
    vertices, faces = corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)
    assert_same(udf_blocks(vertices, faces, 32, backend=backend), udf_blocks(vertices, faces, 32, backend="reference"))


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_order_of_faces_changes_values(backend):
    vertices, faces = soup(12, 0.2, seed=4)
    grid, values = udf_blocks(vertices, faces, 32, backend=backend)
    again, same = udf_blocks(vertices, faces.flip(0), 32, backend=backend)
    assert torch.equal(grid.coords, again.coords) and torch.equal(values, same)


def test_number_of_threads_changes_values():
    vertices, faces = bumpy(40)
    results = []
    threads = numba.get_num_threads()
    for count in {1, threads}:
        numba.set_num_threads(count)
        results.append(udf_blocks(vertices, faces, 96, backend="cpu"))
    numba.set_num_threads(threads)
    for grid, values in results:
        assert torch.equal(grid.coords, results[0][0].coords) and torch.equal(values, results[0][1])


def test_large_triangle_at_2048_explodes_or_loses_precision():
    """Against the plane's own float64 distance, in blocks well inside the triangle."""
    corners = torch.tensor([[-0.49, -0.48, -0.3], [0.5, -0.45, 0.1], [0.02, 0.5, 0.45]])
    grid, values = udf_blocks(corners, torch.tensor([[0, 1, 2]]), 2048, backend="cpu")
    a, b, c = corners.double()
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=0)
    assert 80_000 < len(grid) < 110_000
    rows = torch.arange(0, len(grid), 97)
    axis = torch.arange(8, dtype=torch.float64)
    points = (grid.coords[rows].double() * 8)[:, None] + torch.cartesian_prod(axis, axis, axis) + 0.5
    points = points / 2048 - 0.5
    plane = ((points - a) @ normal).abs() * 2048
    inside = projects_inside(points, corners.double())
    assert float((values[rows].flatten(1) * 4 - plane.clamp_max(4))[inside].abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 100}, "multiple of 8"),
        ({"resolution": 16384}, "multiple of 8"),
        ({"truncation": 0.0}, "positive"),
        ({"activity": float("inf")}, "positive"),
        ({"vertices": torch.full((3, 3), float("nan"))}, "finite"),
        ({"vertices": torch.zeros(2, 3)}, "face indices"),
        ({"vertices": torch.zeros(3, 3, dtype=torch.float64)}, "float32"),
        ({"faces": torch.zeros(1, 4, dtype=torch.int64)}, "int64"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "face indices"),
        ({"backend": "cuda"}, "unknown backend"),
    ],
)
def test_bad_arguments_pass(change, message):
    arguments = {"vertices": torch.eye(3) * 0.3, "faces": torch.tensor([[0, 1, 2]]), "resolution": 32} | change
    with pytest.raises(BadArgument, match=message):
        udf_blocks(**arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("name", HARD)
def test_triton_on_a_gpu_differs_on_hard_cases(name, device):
    vertices, faces = HARD[name]
    for resolution in (24, 512):
        ours = udf_blocks(vertices.to(device), faces.to(device), resolution, backend="triton")
        theirs = udf_blocks(vertices.to(device), faces.to(device), resolution, backend="reference")
        assert_same(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize(("rings", "resolution"), [(40, 256), (187, 512), (700, 256), (187, 1024)])
def test_triton_on_a_gpu_differs_on_a_surface(rings, resolution, device):
    vertices, faces = (part.to(device) for part in bumpy(rings))
    ours = udf_blocks(vertices, faces, resolution, backend="triton")
    assert_same(ours, udf_blocks(vertices, faces, resolution, backend="reference"))
    again = udf_blocks(vertices, faces.flip(0), resolution, backend="triton")
    assert torch.equal(ours[0].coords, again[0].coords) and torch.equal(ours[1], again[1])


@pytest.mark.gpu
def test_triton_on_a_gpu_serialises_a_crowded_block(device):
    generator = torch.Generator(device=device).manual_seed(0)
    corners = torch.rand(1_000_000, 3, 3, generator=generator, device=device) * 1e-3 + 0.1
    vertices, faces = corners.reshape(-1, 3), torch.arange(3_000_000, device=device).reshape(-1, 3)
    ours = udf_blocks(vertices, faces, 256, backend="triton")
    grid, values = udf_blocks(vertices.cpu(), faces.cpu(), 256, backend="cpu")
    assert_same(ours, (grid.to(device), values.to(device)))
