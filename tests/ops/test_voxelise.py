import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapecodec.errors import BadArgument
from shapecodec.grid import morton_decode, morton_encode
from shapecodec.io.mesh_files import read_mesh
from shapecodec.ops.voxelise import reference, voxelise

TWINS = ("reference", "cpu", "triton")


@pytest.fixture(params=TWINS)
def twin(request):
    if request.param == "triton":
        pytest.importorskip("triton")
    return request.param


def soup(faces: int, seed: int = 0, spread: float = 0.2, extent: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = (torch.rand(faces, 1, 3, generator=generator) - 0.5) * extent
    corners = centre + spread * torch.randn(faces, 3, 3, generator=generator)
    return corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3)


def clipped(polygon: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What remains of a polygon within a box, plane by plane (Sutherland-Hodgman): another method than the code's."""
    for axis, (sign, bound) in itertools.product(range(3), ((1.0, high), (-1.0, -low))):
        side = sign * polygon[:, axis] - bound[axis]
        kept = []
        for i in range(len(polygon)):
            j = (i + 1) % len(polygon)
            if side[i] <= 1e-10:
                kept.append(polygon[i])
            if side[i] * side[j] < 0 and abs(side[i]) > 1e-10 and abs(side[j]) > 1e-10:
                kept.append(polygon[i] + (polygon[j] - polygon[i]) * (side[i] / (side[i] - side[j])))
        if not kept:
            return np.zeros((0, 3))
        polygon = np.array(kept)
    return polygon


def brute(vertices, faces, resolution, reach=0.0):
    """Every voxel against every triangle, by clipping; reach in voxels."""
    found = set()
    corners = (vertices.double().numpy()[faces.numpy()] + 0.5) * resolution
    for voxel in itertools.product(range(resolution), repeat=3):
        low, high = np.array(voxel) - reach, np.array(voxel) + 1 + reach
        near = ((corners.min(1) <= high) & (corners.max(1) >= low)).all(1)
        if any(len(clipped(triangle, low, high)) for triangle in corners[near]):
            found.add(voxel)
    return found


def touched(*arguments, **options):
    grid = voxelise(*arguments, **options)
    found = {tuple(row) for row in grid.coords.tolist()}
    assert len(found) == len(grid) and bool((morton_encode(grid.coords).diff() > 0).all())
    assert grid.offsets.tolist() == [0, len(grid)] and grid.coords.dtype == torch.int32
    return found


@pytest.mark.parametrize(("count", "resolution", "spread"), [(1, 8, 0.4), (5, 9, 0.2), (30, 13, 0.05), (7, 1, 0.3)])
@pytest.mark.parametrize("dilation", [0.0, 1.0, 2.5])
def test_voxel_that_a_triangle_touches_is_lost(twin, count, resolution, spread, dilation):
    vertices, faces = soup(count, seed=count, spread=spread)
    expected = brute(vertices, faces, resolution, dilation / 4)
    assert touched(vertices, faces, resolution, dilation=dilation, backend=twin) == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-10, 10), min_size=9, max_size=9), st.sampled_from([0.0, 1.0, 2.0]))
def test_touching_on_a_border_depends_on_rounding(numbers, dilation):
    """Corners on borders, edges and corners of voxels, triangles of any degeneracy, parts outside the cube."""
    vertices, faces = torch.tensor(numbers).reshape(3, 3) / 16, torch.arange(3)[None]
    expected = brute(vertices, faces, 8, dilation / 4)
    for twin in ("reference", "cpu"):
        assert touched(vertices, faces, 8, dilation=dilation, backend=twin) == expected


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_plane_on_a_border_fills_one_side_only(twin, axis):
    square = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.5, 0.5], [0.0, -0.5, 0.5]]).roll(axis, 1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    found = touched(square, faces, 8, backend=twin)
    assert found == {v for v in itertools.product(range(8), repeat=3) if v[axis] in (3, 4)}
    face_of_cube = square + torch.eye(3)[axis] * 0.5
    assert touched(face_of_cube, faces, 8, backend=twin) == {
        v for v in itertools.product(range(8), repeat=3) if v[axis] == 7
    }


@pytest.mark.parametrize("resolution", [16, 64])
def test_triangle_without_area_vanishes_or_spreads(twin, resolution):
    point = torch.tensor([[0.01, 0.02, 0.03]]).repeat(3, 1)
    expected = tuple(((point[0].double() + 0.5) * resolution).int().tolist())
    assert touched(point, torch.arange(3)[None], resolution, backend=twin) == {expected}
    ends = torch.tensor([[-0.45, -0.4, -0.35], [0.05, 0.0, 0.05], [0.4, 0.35, 0.45]])
    line = torch.stack([ends[0], ends[0].lerp(ends[2], 0.37), ends[2]])
    found = touched(line, torch.arange(3)[None], resolution, backend=twin)
    steps = ends[0].double() + torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None] * (ends[2] - ends[0])
    sampled = {tuple(row) for row in torch.unique(((steps + 0.5) * resolution).int(), dim=0).tolist()}
    assert sampled <= found and len(found - sampled) <= 2  # corners that are cut by less than a sample's step
    assert len(found) < 4 * resolution


def test_empty_mesh_and_mesh_outside_fill_something(twin):
    vertices, faces = soup(3)
    assert touched(vertices, faces[:0], 8, backend=twin) == set()
    assert touched(vertices + 9, faces, 8, backend=twin) == set()
    assert touched(vertices - 1e6, faces, 1024, backend=twin) == set()


def test_triangle_across_the_cube_takes_the_whole_cube(twin):
    """x + y + z = 0, from far outside: the slab's voxels are those whose corners lie on both sides."""
    resolution = 16
    far = torch.tensor([[40.0, -20.0, -20.0], [-20.0, 40.0, -20.0], [-20.0, -20.0, 40.0]])
    found = touched(far, torch.arange(3)[None], resolution, backend=twin)
    every = itertools.product(range(resolution), repeat=3)
    assert found == {v for v in every if sum(v) <= 24 <= sum(v) + 3}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_large_triangle_needs_a_dense_grid(backend):
    corner = torch.tensor([[-0.5, -0.5, 0.1], [0.5, -0.5, 0.13], [-0.5, 0.5, 0.11]])
    grid = voxelise(corner, torch.arange(3)[None], 512, backend=backend)
    assert 512**2 / 2 < len(grid) < 512**2  # a heightfield over half a square, slope under 1 in 20


def test_order_of_faces_or_size_of_chunk_changes_the_result():
    vertices, faces = soup(50, spread=0.03)
    base = voxelise(vertices, faces, 32, dilation=1.0, backend="reference").coords
    for twin in ("reference", "cpu"):
        shuffled = faces[torch.randperm(50, generator=torch.Generator().manual_seed(1))].roll(1, 1)
        assert torch.equal(voxelise(vertices, shuffled, 32, dilation=1.0, backend=twin).coords, base)
    for sizes in ((7, 1000), (200, 1), (64, 50)):
        keys = reference.touched_keys(vertices, faces, 32, 0.25, faces_at_once=sizes[0], boxes_at_once=sizes[1])
        assert torch.equal(morton_decode(keys), base)


def test_reach_of_many_voxels_loses_some():
    vertices, faces = soup(2, seed=4, spread=0.1)
    expected = brute(vertices, faces, 8, 2.75)
    for twin in ("reference", "cpu"):
        assert touched(vertices, faces, 8, dilation=11.0, backend=twin) == expected


@pytest.mark.parametrize(
    ("count", "width", "resolution", "reach"), [(1500, 0.004, 64, 0.25), (80, 0.3, 32, 0.0), (60, 0.02, 16, 5.0)]
)
def test_all_triangles_begin_at_once(monkeypatch, count, width, resolution, reach):
    """Small triangles that begin with their voxels, large ones, and a reach of many voxels: what is made at a time is bounded."""
    made, at_once, spread = [], 500, reference.spread

    def counted(first, last):
        owner, cell = spread(first, last)
        made.append(len(owner))
        return owner, cell

    vertices, faces = soup(count, spread=width)
    whole = reference.touched_keys(vertices, faces, resolution, reach)
    monkeypatch.setattr(reference, "spread", counted)
    keys = reference.touched_keys(vertices, faces, resolution, reach, boxes_at_once=at_once)
    assert torch.equal(keys, whole)
    assert sum(made) > 20 * at_once and max(made) <= 8 * at_once  # a halved box becomes eight
    if width * resolution < 1 and reach < 1:
        assert max(made) <= at_once and len(made) < 2 * sum(made) / at_once  # nothing is halved, and launches stay few


def test_real_mesh_differs_between_backends(twin):
    mesh = read_mesh(Path(__file__).parents[1] / "assets" / "trex.drc")
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    vertices = (mesh.vertices - (low + high) / 2) / float((high - low).max())
    faces = mesh.faces if twin != "triton" else mesh.faces[:300]
    expected = voxelise(vertices, faces, 64, dilation=1.0, backend="reference")
    found = voxelise(vertices, faces, 64, dilation=1.0, backend=twin)
    assert len(expected) > 100 and torch.equal(found.coords, expected.coords)


def test_open3d_finds_other_voxels():
    """Its boxes are half open, so only meshes off the borders agree."""
    open3d = pytest.importorskip("open3d")
    vertices, faces = soup(40, spread=0.08, extent=0.5)
    mesh = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(vertices.double().numpy()), open3d.utility.Vector3iVector(faces.int().numpy())
    )
    bounds = np.full(3, -0.5), np.full(3, 0.5)
    voxels = open3d.geometry.VoxelGrid.create_from_triangle_mesh_within_bounds(mesh, 1 / 32, *bounds).get_voxels()
    assert touched(vertices, faces, 32) == {tuple(voxel.grid_index.tolist()) for voxel in voxels}


def test_bad_arguments_are_accepted():
    vertices, faces = soup(2)
    for arguments, options in (
        ((vertices, faces, 0), {}),
        ((vertices, faces.int(), 8), {}),
        ((vertices, faces + 4, 8), {}),
        ((vertices * float("nan"), faces, 8), {}),
        ((vertices, faces, 8), {"dilation": -1.0}),
        ((vertices[:, :2], faces, 8), {}),
    ):
        with pytest.raises(BadArgument):
            voxelise(*arguments, **options)


@pytest.mark.gpu
def test_cuda_finds_other_voxels(device):
    vertices, faces = soup(200_000, spread=0.004, extent=0.9)
    expected = voxelise(vertices, faces, 512, dilation=1.0, backend="cpu")
    found = voxelise(vertices.to(device), faces.to(device), 512, dilation=1.0, backend="triton")
    assert torch.equal(found.coords.cpu(), expected.coords)
