"""SparseGrid against Python integers, dictionaries and loops."""

from itertools import pairwise

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, morton_decode, morton_encode, neighbour_taps


def random_coords(count, resolution, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.unique(torch.randint(0, resolution, (count, 3), generator=generator), dim=0)


def random_batch(counts=(60, 1, 90), resolution=9):
    return SparseGrid.concatenate([SparseGrid.build(random_coords(n, resolution, n), resolution)[0] for n in counts])


def python_morton(x, y, z):
    return sum(((x >> b & 1) << 2 | (y >> b & 1) << 1 | (z >> b & 1)) << 3 * b for b in range(20))


def test_morton_code_differs_from_python_integers():
    coords = torch.cat([random_coords(200, 1 << 20), torch.tensor([[0, 0, 0], [(1 << 20) - 1] * 3, [1, 0, 0]])])
    keys = morton_encode(coords)
    assert keys.tolist() == [python_morton(*c) for c in coords.tolist()]
    assert torch.equal(morton_decode(keys), coords.to(torch.int32))


def test_build_leaves_rows_out_of_morton_order():
    coords = random_coords(300, 100)[torch.randperm(len(random_coords(300, 100)))]
    grid, order = SparseGrid.build(coords, 100)
    assert torch.equal(grid.coords.long(), coords[order])
    assert grid.coords.dtype == torch.int32
    codes = [python_morton(*c) for c in grid.coords.tolist()]
    assert codes == sorted(codes)


@pytest.mark.parametrize("resolution", [0, -3, (1 << 20) + 1])
def test_impossible_resolution_passes(resolution):
    with pytest.raises(BadArgument):
        SparseGrid.build(torch.zeros(1, 3, dtype=torch.int64), resolution)


def test_lookup_finds_absent_voxels_or_misses_present_ones():
    grid = random_batch()
    rows = {(b, *c): i for i, (b, c) in enumerate(zip(grid.batch_index().tolist(), grid.coords.tolist(), strict=True))}
    queries = torch.cartesian_prod(*[torch.arange(-2, 12)] * 3)
    for item in range(3):
        found = grid.lookup(queries, item)
        assert found.tolist() == [rows.get((item, *q), -1) for q in queries.tolist()]


@pytest.mark.parametrize("resolution", [1, 2, 3, 8])
def test_neighbours_differ_from_a_dictionary(resolution):
    grid = random_batch((resolution, 2 * resolution), resolution)
    rows = {(b, *c): i for i, (b, c) in enumerate(zip(grid.batch_index().tolist(), grid.coords.tolist(), strict=True))}
    expected = [
        [rows.get((b, x + dx, y + dy, z + dz), -1) for dx in (-1, 0, 1) for dy in (-1, 0, 1) for dz in (-1, 0, 1)]
        for b, x, y, z in rows
    ]
    assert grid.neighbours().tolist() == expected
    assert grid.neighbours().dtype == torch.int32


def test_neighbours_are_not_symmetric():
    neighbours = random_batch().neighbours().long()
    row, tap = (neighbours >= 0).nonzero().unbind(1)
    assert torch.equal(neighbours[neighbours[row, tap], 26 - tap], row)
    assert torch.equal(neighbours[:, 13], torch.arange(len(neighbours)))
    assert neighbour_taps()[13].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("size", "shift"), [(4, 0), (4, 2), (3, 1), (8, 4), (16, 0), (1, 0)])
def test_windows_differ_from_a_dictionary(size, shift):
    grid = random_batch((120, 1, 90), 9)
    plan = grid.windows(size, shift)
    expected = {}
    for i, (b, c) in enumerate(zip(grid.batch_index().tolist(), grid.coords.tolist(), strict=True)):
        expected.setdefault((b, *((x + shift) // size for x in c)), []).append(i)
    bounds, order = plan.offsets.tolist(), plan.order.tolist()
    ours = [order[a:b] for a, b in pairwise(bounds)]
    assert sorted(map(tuple, ours)) == sorted(map(tuple, expected.values()))
    assert plan.longest == max(map(len, ours))
    assert plan.offsets.dtype == torch.int32
    assert torch.equal(plan.order[plan.inverse], torch.arange(len(grid)))


def test_items_mix_in_a_batch_of_equal_shapes():
    one = SparseGrid.build(random_coords(50, 8), 8)[0]
    grid = SparseGrid.concatenate([one, one, one])
    alone = one.neighbours()
    for item in range(3):
        start = len(one) * item
        expected = torch.where(alone >= 0, alone + start, -1)
        assert torch.equal(grid.neighbours()[start : start + len(one)], expected)
    window = grid.windows(4)
    items = grid.batch_index()[window.order]
    for a, b in zip(window.offsets[:-1].tolist(), window.offsets[1:].tolist(), strict=True):
        assert len(items[a:b].unique()) == 1


def test_empty_grid_breaks_a_plan():
    grid = SparseGrid.build(torch.zeros(0, 3, dtype=torch.int64), 8)[0]
    assert grid.neighbours().shape == (0, 27)
    plan = grid.windows(8, 4)
    assert plan.offsets.tolist() == [0]
    assert plan.longest == 0
    assert grid.lookup(torch.zeros(5, 3, dtype=torch.int32)).tolist() == [-1] * 5


def test_empty_item_shifts_the_others():
    empty = SparseGrid.build(torch.zeros(0, 3, dtype=torch.int64), 8)[0]
    one = SparseGrid.build(torch.tensor([[1, 2, 3]]), 8)[0]
    grid = SparseGrid.concatenate([empty, one, empty, one])
    assert grid.offsets.tolist() == [0, 0, 1, 1, 2]
    assert grid.batch_index().tolist() == [1, 3]
    assert grid.lookup(torch.tensor([[1, 2, 3]]), 3).tolist() == [1]
    assert grid.lookup(torch.tensor([[1, 2, 3]]), 2).tolist() == [-1]


def test_farthest_voxel_of_the_largest_grid_is_lost():
    far = (1 << 20) - 1
    one = SparseGrid.build(torch.tensor([[far, far, far], [far - 1, far, far], [0, 0, 0]]), 1 << 20)[0]
    grid = SparseGrid.concatenate([one] * 8)
    assert bool((grid.keys().diff() > 0).all())
    assert bool((grid.keys() >= 0).all())
    assert (grid.neighbours() >= 0).sum(1).tolist() == [1, 2, 2] * 8
    assert (grid.windows(8, 4).offsets.diff() > 0).all()


def test_items_beyond_the_keys_mix_silently():
    one = SparseGrid.build(torch.tensor([[0, 0, 0]]), 1 << 20)[0]
    with pytest.raises(BadArgument, match="at most 8 items"):
        SparseGrid.concatenate([one] * 9).neighbours()


def test_different_resolutions_are_concatenated():
    with pytest.raises(BadArgument):
        SparseGrid.concatenate([random_batch(resolution=8), random_batch(resolution=9)])


def test_plans_are_rebuilt_on_each_call():
    grid = random_batch()
    assert grid.neighbours() is grid.neighbours()
    assert grid.windows(8) is grid.windows(8)
    assert grid.windows(8) is not grid.windows(8, 4)
    assert grid.cached("answer", lambda: 42) == grid.cached("answer", lambda: 43) == 42


def test_centres_are_corners():
    grid = SparseGrid.build(torch.tensor([[0, 0, 0], [3, 3, 3]]), 4)[0]
    assert grid.centres().tolist() == [[-0.375] * 3, [0.375] * 3]


def test_neighbours_of_children_differ_from_a_search():
    for grid in (random_batch(), SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 4)):
        finer = grid.children().children()
        plain = SparseGrid(finer.coords, finer.offsets, finer.resolution)
        assert finer.resolution == 4 * grid.resolution and len(finer) == 64 * len(grid)
        assert torch.equal(finer.neighbours(), plain.neighbours())
        assert torch.equal(finer.keys(), plain.keys().sort().values)
