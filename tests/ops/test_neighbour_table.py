"""Triton's table of neighbours against the grid's own."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.neighbour_table import neighbour_table

# numpy 2.x under Triton's interpreter, which reads loop bounds from arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def random_grid(count, resolution, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(resolution**3, generator=generator)[:count]
    coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
    return SparseGrid.build(coords, resolution)[0]


def far_apart():
    """Voxels at both ends of a 2^20 grid: all bits of a coordinate count."""
    ends = torch.tensor([0, 1, (1 << 19) - 1, 1 << 19, (1 << 20) - 2, (1 << 20) - 1])
    return SparseGrid.build(torch.cartesian_prod(ends, ends[:4], ends[2:]), 1 << 20)[0]


EMPTY = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 7)
GRIDS = {
    "empty": EMPTY,
    "single": random_grid(1, 1),
    "full": random_grid(27, 3),
    "odd": random_grid(200, 7),
    "batch": SparseGrid.concatenate([random_grid(20, 7), EMPTY, random_grid(9, 7, 1), random_grid(120, 7, 2)]),
    "far_apart": far_apart(),
}


def fresh(grid):
    return SparseGrid(grid.coords, grid.offsets, grid.resolution)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_triton_finds_other_neighbours_than_the_grid(grid):
    ours = neighbour_table(fresh(grid), backend="triton")
    assert ours.dtype == torch.int32
    assert torch.equal(ours, fresh(grid).neighbours())


@pytest.mark.parametrize("grid", [EMPTY, GRIDS["single"], random_grid(23, 4)], ids=["empty", "single", "odd"])
def test_children_have_other_neighbours_than_a_search_finds(grid):
    children = fresh(grid).children().children()
    ours = neighbour_table(children, backend="triton")
    assert torch.equal(ours, fresh(children).neighbours())


def test_table_is_built_twice_or_not_kept():
    grid = random_grid(9, 4)
    table = neighbour_table(grid, backend="triton")
    assert grid.neighbours() is table
    assert neighbour_table(grid) is table


def test_unknown_backend_passes():
    with pytest.raises(BadArgument):
        neighbour_table(random_grid(3, 4), backend="hash")


@pytest.mark.gpu
def test_triton_finds_other_neighbours_than_the_grid_on_cuda(device):
    items = [
        random_grid(400_000, 128).to(device),
        random_grid(3, 128, 1).to(device),
        random_grid(100_000, 128, 2).to(device),
    ]
    grid = SparseGrid.concatenate(items)
    assert torch.equal(neighbour_table(fresh(grid)), fresh(grid).neighbours())
    children = fresh(grid).children()
    assert torch.equal(neighbour_table(children), fresh(children).neighbours())
