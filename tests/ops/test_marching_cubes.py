"""What goes wrong in marching cubes: holes at ambiguous faces and block seams, flipped faces, doubled vertices, NaN."""

from itertools import product

import numpy as np
import pytest
import torch
from skimage.measure import marching_cubes as dense_marching_cubes

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.marching_cubes import marching_cubes
from shapecodec.ops.marching_cubes.tables import edge_ends, face_segments, loops_of, share_a_face, tables

BACKENDS = ["reference", "cpu", "triton"]
FAST = ["cpu", "triton"]


def some_grid(blocks: int, resolution: int, seed: int = 0) -> SparseGrid:
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(resolution**3, generator=generator)[:blocks]
    coords = torch.stack([pick // resolution**2, pick // resolution % resolution, pick % resolution], 1).int()
    return SparseGrid.build(coords, resolution)[0]


def noise(grid: SparseGrid, seed: int = 0) -> torch.Tensor:
    return torch.rand(len(grid), 8, 8, 8, generator=torch.Generator().manual_seed(seed))


def sphere(blocks: int, radius: float = 0.31) -> tuple[SparseGrid, torch.Tensor]:
    """Blocks within four voxels of a sphere and its distance field in units of four voxels."""
    resolution = blocks * 8
    axis = torch.arange(blocks)
    coords = torch.cartesian_prod(axis, axis, axis).int()
    voxel = torch.cartesian_prod(*[torch.arange(8)] * 3)
    centres = (coords[:, None] * 8 + voxel + 0.5) / resolution - 0.5
    values = ((centres.norm(dim=-1) - radius).abs() * resolution / 4).clamp(max=1.0).view(-1, 8, 8, 8)
    keep = values.flatten(1).amin(1) < 1
    grid, order = SparseGrid.build(coords[keep], blocks)
    return grid, values[keep][order].contiguous()


def to_dense(values: torch.Tensor, grid: SparseGrid, fill: float) -> np.ndarray:
    """Blocks in a dense volume with a border of one absent block."""
    side = (grid.resolution + 2) * 8
    dense = torch.full((side, side, side), fill)
    for (x, y, z), block in zip((grid.coords.long() * 8 + 8).tolist(), values, strict=True):
        dense[x : x + 8, y : y + 8, z : z + 8] = block
    return dense.numpy()


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    corners = vertices.double()[faces]
    return float((corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6)


def assert_sound(vertices: torch.Tensor, faces: torch.Tensor) -> None:
    """Finite, every edge in two faces of opposite direction, every vertex used, no zero triangle, no vertex twice."""
    assert torch.isfinite(vertices).all()
    mesh = Mesh(vertices, faces)
    assert mesh.is_watertight()
    directed = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = directed[:, 0].long() * len(vertices) + directed[:, 1]
    assert len(key.unique()) == len(key)
    assert len(faces.unique()) == len(vertices)
    assert len(torch.unique(vertices, dim=0)) == len(vertices)


# ---- the tables -----------------------------------------------------------------------------------------------------


def test_table_counts() -> None:
    derived = tables()
    assert int(derived.counts.sum()) == 820  # as in the widespread hand-made table
    assert int(derived.counts.max()) == 5
    assert ((derived.triangles >= 0).sum(1) == 3 * derived.counts).all()
    assert derived.counts[0] == derived.counts[255] == 0


def test_table_uses_an_edge_that_is_not_cut() -> None:
    for case in range(256):
        inside = [case >> corner & 1 for corner in range(8)]
        cut = {
            edge
            for edge in range(12)
            for low, high in [edge_ends(edge)]
            if inside[4 * low[0] + 2 * low[1] + low[2]] != inside[4 * high[0] + 2 * high[1] + high[2]]
        }
        row = tables().triangles[case]
        assert set(row[row >= 0].tolist()) == cut


def test_cells_disagree_on_their_common_face() -> None:
    """For each sign pattern of a face, the two cells draw the same segments in opposite directions."""
    for axis, pattern in product(range(3), range(16)):
        bits = {place: pattern >> n & 1 for n, place in enumerate(product((0, 1), repeat=2))}
        cases = [0, 0]  # of the cell below the face, and of the one above
        for (u, v), bit in bits.items():
            for side in (0, 1):
                place = [u, v]
                place.insert(axis, 1 - side)
                cases[side] |= bit << (4 * place[0] + 2 * place[1] + place[2])
        below = {tuple(_across(edge, axis) for edge in segment[::-1]) for segment in face_segments(cases[0], axis, 1)}
        assert below == set(face_segments(cases[1], axis, 0))


def _across(edge: int, axis: int) -> int:
    """The edge of the upper cell that is this edge, on the upper face, of the lower cell."""
    low = list(edge_ends(edge)[0])
    low[axis] = 0
    return next(e for e in range(12) if e // 4 == edge // 4 and edge_ends(e)[0] == tuple(low))


def test_diagonal_in_a_face() -> None:
    """A triangle side is a segment of a loop or a diagonal through the cell, never a chord of a face."""
    for case in range(256):
        sides = {frozenset(pair) for loop in loops_of(case) for pair in zip(loop, loop[1:] + loop[:1], strict=True)}
        row = tables().triangles[case]
        for triangle in row[: 3 * tables().counts[case]].reshape(-1, 3).tolist():
            for a, b in ((0, 1), (1, 2), (2, 0)):
                pair = frozenset((triangle[a], triangle[b]))
                assert pair in sides or not share_a_face(triangle[a], triangle[b])


def test_complement_changes_more_than_orientation() -> None:
    """Cases without an ambiguous face are their complement with the faces turned over."""
    for case in range(256):
        ambiguous = any(len(face_segments(case, axis, side)) == 2 for axis, side in product(range(3), range(2)))
        if not ambiguous:
            turned = {frozenset(zip(loop[1:] + loop[:1], loop, strict=True)) for loop in loops_of(255 - case)}
            assert turned == {frozenset(zip(loop, loop[1:] + loop[:1], strict=True)) for loop in loops_of(case)}


# ---- the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("below", [True, False])
def test_noise_has_holes(below: bool, fill: float) -> None:
    grid = some_grid(20, 4)
    vertices, faces = marching_cubes(noise(grid), grid, 0.4, fill=fill, inside_is_below=below, backend="reference")
    assert_sound(vertices, faces)


@pytest.mark.parametrize("coords", [[[0, 0, 0]], [[0, 0, 0], [1, 1, 1]], [[1, 0, 1], [0, 1, 1]]])
def test_surface_at_the_border_of_the_cube_is_open(coords: list[list[int]]) -> None:
    grid, _ = SparseGrid.build(torch.tensor(coords, dtype=torch.int32), 2)
    values = torch.zeros(len(grid), 8, 8, 8)
    vertices, faces = marching_cubes(values, grid, 0.5, backend="reference")
    assert_sound(vertices, faces)
    side = 8 / 16  # sides of 7 voxels and half a voxel on either hand, less the cut edges and corners
    assert 0.9 * len(grid) * side**3 < volume(vertices, faces) < len(grid) * side**3


def test_inverted_field_is_turned_over() -> None:
    grid = some_grid(9, 3)
    values = noise(grid)
    vertices, faces = marching_cubes(values, grid, 0.5, backend="reference")
    again, same_faces = marching_cubes(-values, grid, -0.5, fill=-1.0, inside_is_below=False, backend="reference")
    assert torch.equal(vertices, again)
    assert torch.equal(faces, same_faces)


def test_dense_marching_cubes_finds_another_surface() -> None:
    """scikit-image's classic table parts the outside corners of a face, so the field is negated for it."""
    grid = some_grid(12, 3)
    values = noise(grid)
    vertices, faces = marching_cubes(values, grid, 0.37, backend="reference")
    dense, dense_faces, _, _ = dense_marching_cubes(-to_dense(values, grid, 1.0), -0.37, method="lorensen")
    assert (len(vertices), len(faces)) == (len(dense), len(dense_faces))
    distance = torch.cdist((vertices + 0.5) * 24 + 7.5, torch.tensor(dense.copy())).amin(1)
    assert float(distance.mean()) < 2e-3  # it interpolates with weights 1 / (epsilon + |value - level|)
    assert float(distance.max()) < 0.03


def test_plane_is_bent() -> None:
    grid = some_grid(27, 3)
    voxel = torch.cartesian_prod(*[torch.arange(8)] * 3)
    centres = (grid.coords[:, None] * 8 + voxel + 0.5) / 24 - 0.5
    normal = torch.tensor([0.36, 0.48, 0.8])
    values = (centres @ normal).view(-1, 8, 8, 8)
    vertices, faces = marching_cubes(values, grid, 0.03, fill=9.0, backend="reference")
    within = (vertices.abs() < 0.5 - 0.5 / 24).all(1)  # the rest closes the surface along the cube's border
    assert float((vertices[within] @ normal - 0.03).abs().max()) < 2**-9 / 24
    normals = Mesh(vertices, faces).face_normals()[within[faces].all(1)]
    assert float((normals @ normal).min()) > 0.99


def test_dense_marching_cubes_counts_other_triangles() -> None:
    grid, values = sphere(6)
    vertices, faces = marching_cubes(values, grid, 0.25, backend="reference")
    dense, dense_faces, _, _ = dense_marching_cubes(to_dense(values, grid, 1.0), 0.25)
    assert (len(vertices), len(faces)) == (len(dense), len(dense_faces))


def test_sphere_shell_is_turned_inside_out() -> None:
    grid, values = sphere(8)
    vertices, faces = marching_cubes(values, grid, 0.25, backend="reference")
    assert_sound(vertices, faces)
    voxel = 1 / 64
    assert float((vertices.norm(dim=1) - 0.31).abs().sub(voxel).abs().max()) < 0.1 * voxel
    shell = 4 / 3 * torch.pi * ((0.31 + voxel) ** 3 - (0.31 - voxel) ** 3)
    assert volume(vertices, faces) == pytest.approx(shell, rel=0.02)


def test_value_at_the_level_collapses_triangles() -> None:
    grid, _ = SparseGrid.build(torch.zeros(1, 3, dtype=torch.int32), 1)
    values = torch.ones(1, 8, 8, 8)
    values[0, 3:5, 3:5, 3:5] = 0.0
    values[0, 2, 3, 3] = values[0, 5, 4, 4] = 0.5
    vertices, faces = marching_cubes(values, grid, 0.5, backend="reference")
    assert_sound(vertices, faces)
    assert float(Mesh(vertices, faces).face_areas().min()) > 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_reaches_the_vertices(backend: str) -> None:
    grid, values = sphere(2)
    values[0, 4] = torch.nan
    values[1, 2] = torch.inf
    assert_sound(*marching_cubes(values, grid, 0.25, backend=backend))


def of_cells(vertices: torch.Tensor, faces: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners (F, 3, 3) of each triangle and the low voxel (F, 3) of its cell."""
    corners = vertices[faces.long()]
    return corners, ((corners.mean(1) + 0.5) * resolution - 0.5).floor().int()


def sorted_rows(triangles: torch.Tensor) -> torch.Tensor:
    return torch.unique(triangles.flatten(1), dim=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blocks", [1, 5, 20, 27])
def test_skip_reads_an_absent_block(blocks: int, backend: str) -> None:
    """As if every block were there, without the triangles of cells that touch an absent one."""
    everywhere = some_grid(27, 3)
    values = noise(everywhere)
    kept = torch.randperm(27, generator=torch.Generator().manual_seed(3))[:blocks].sort().values
    grid = SparseGrid.build(everywhere.coords[kept], 3)[0]
    options = {"fill": 0.0, "inside_is_below": False}
    triangles, cell = of_cells(*marching_cubes(values, everywhere, 0.4, **options, backend="reference"), 24)
    corners = cell[:, None] + torch.cartesian_prod(*[torch.arange(2)] * 3)
    beyond = ((corners < 0) | (corners >= 24)).any(-1)
    complete = (beyond | (grid.lookup(corners >> 3) >= 0)).all(1)
    vertices, faces = marching_cubes(values[kept], grid, 0.4, **options, absent="skip", backend=backend)
    found = of_cells(vertices, faces, 24)[0]
    assert len(found) == int(complete.sum()) > 0
    torch.testing.assert_close(sorted_rows(found), sorted_rows(triangles[complete]), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_skip_closes_a_solid_at_absent_blocks(backend: str) -> None:
    """Only the blocks that a sphere's surface passes: with the fill its inside gets walls."""
    axis = torch.arange(6)
    grid, _ = SparseGrid.build(torch.cartesian_prod(axis, axis, axis).int(), 6)
    voxel = torch.cartesian_prod(*[torch.arange(8)] * 3)
    values = 0.4 - ((grid.coords[:, None] * 8 + voxel + 0.5) / 48 - 0.5).norm(dim=-1).view(-1, 8, 8, 8)
    passed = (values.flatten(1) > -0.04).any(1) & (values.flatten(1) < 0.04).any(1)
    some, options = SparseGrid.build(grid.coords[passed], 6)[0], {"fill": -1.0, "inside_is_below": False}
    assert int(passed.sum()) < len(grid)
    vertices, faces = marching_cubes(values[passed], some, 0.0, **options, absent="skip", backend=backend)
    assert_sound(vertices, faces)
    dense = marching_cubes(values, grid, 0.0, **options, backend=backend)
    assert (len(vertices), len(faces)) == (len(dense[0]), len(dense[1]))
    filled = marching_cubes(values[passed], some, 0.0, **options, backend=backend)
    assert len(filled[1]) > len(faces)


def test_bad_arguments_are_accepted() -> None:
    grid = some_grid(5, 3)
    values = noise(grid)
    with pytest.raises(BadArgument, match="expected values"):
        marching_cubes(values[:4], grid, 0.5)
    with pytest.raises(BadArgument, match="float32"):
        marching_cubes(values.double(), grid, 0.5)
    with pytest.raises(BadArgument, match="one item"):
        marching_cubes(torch.cat([values, values]), SparseGrid.concatenate([grid, grid]), 0.5)
    with pytest.raises(BadArgument, match="index_dtype"):
        marching_cubes(values, grid, 0.5, index_dtype=torch.float32)
    with pytest.raises(BadArgument, match="finite"):
        marching_cubes(values, grid, float("nan"))
    with pytest.raises(BadArgument, match="absent"):
        marching_cubes(values, grid, 0.5, absent="nearest")


# ---- the fast paths -------------------------------------------------------------------------------------------------

CASES = {
    "empty": lambda: (some_grid(0, 4), noise(some_grid(0, 4))),
    "single": lambda: (some_grid(1, 1), noise(some_grid(1, 1))),
    "odd": lambda: (some_grid(5, 2), noise(some_grid(5, 2))),
    "no surface": lambda: (some_grid(3, 2), torch.ones(3, 8, 8, 8)),
}


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", CASES)
def test_fast_path_differs_from_reference(case: str, backend: str) -> None:
    compare(*CASES[case](), backend, fill=1.0, below=True)


@pytest.mark.parametrize("backend", FAST)
def test_fast_path_differs_inside_out(backend: str) -> None:
    compare(*CASES["odd"](), backend, fill=1.0, below=False)


def test_cpu_differs_from_reference_on_many_blocks() -> None:
    grid = some_grid(150, 6)
    compare(grid, noise(grid), "cpu", fill=0.0, below=True)
    compare(*sphere(12), "cpu", fill=1.0, below=True)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", CASES)
def test_fast_path_differs_from_reference_with_skip(case: str, backend: str) -> None:
    compare(*CASES[case](), backend, fill=0.0, below=False, absent="skip")


def compare(
    grid: SparseGrid, values: torch.Tensor, backend: str, *, fill: float, below: bool, absent: str = "fill"
) -> None:
    """The same arrays, in the same order, whatever the index type."""
    options = {"fill": fill, "inside_is_below": below, "absent": absent}
    both = [
        marching_cubes(values, grid, 0.4, **options, backend=name, index_dtype=dtype)
        for name, dtype in (("reference", torch.int64), (backend, torch.int32))
    ]
    (vertices, faces), (fast_vertices, fast_faces) = both
    assert faces.dtype == torch.int64
    assert fast_faces.dtype == torch.int32
    assert torch.equal(faces, fast_faces.long())
    torch.testing.assert_close(vertices, fast_vertices, rtol=0.0, atol=2e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("absent", ["fill", "skip"])
def test_gpu_differs_from_reference_on_noise(below: bool, fill: float, absent: str) -> None:
    grid = some_grid(3_001, 24).to("cuda")
    compare(grid, noise(grid).to("cuda"), "triton", fill=fill, below=below, absent=absent)


@pytest.mark.gpu
@pytest.mark.parametrize("blocks", [1, 16, 33])
def test_gpu_differs_from_reference_on_a_sphere(blocks: int) -> None:
    grid, values = sphere(blocks)
    compare(grid.to("cuda"), values.to("cuda"), "triton", fill=1.0, below=True)


@pytest.mark.gpu
def test_gpu_memory_at_2048() -> None:
    """340k blocks: 8 * 340k * 64 rows fill 0.7 GB; 3 bytes a voxel and the mesh come on top."""
    grid, values = sphere(16)
    tiles = 340_000 // len(grid)
    side = 16 * (round(tiles ** (1 / 3)) + 1)
    axis = torch.arange(side // 16)
    shift = torch.cartesian_prod(axis, axis, axis)[:tiles].int() * 16
    tiled, order = SparseGrid.build((shift[:, None] + grid.coords).view(-1, 3), side)
    many = values.repeat(tiles, 1, 1, 1)[order].to("cuda")
    tiled = tiled.to("cuda")
    torch.cuda.reset_peak_memory_stats()
    vertices, faces = marching_cubes(many, tiled, 0.25)
    assert torch.cuda.max_memory_allocated() < 15e9
    single, single_faces = marching_cubes(values.to("cuda"), grid.to("cuda"), 0.25)
    assert (len(vertices), len(faces)) == (tiles * len(single), tiles * len(single_faces))
    assert int(faces.max()) == len(vertices) - 1
