"""SparseTensor: rows, features and plans stay together."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, morton_encode
from shapecodec.sparse import SparseTensor


def batch():
    grids = [SparseGrid.build(torch.tensor(c), 8)[0] for c in ([[1, 2, 3], [0, 0, 0], [7, 7, 7]], [[4, 4, 4]])]
    grid = SparseGrid.concatenate(grids)
    return SparseTensor(grid, torch.arange(12.0).view(4, 3))


def test_feats_of_another_grid_pass():
    with pytest.raises(BadArgument):
        batch().replace(torch.zeros(5, 3))
    assert batch().replace(torch.zeros(4, 9)).feats.shape == (4, 9)


def test_replace_drops_the_plans():
    tensor = batch()
    assert tensor.replace(tensor.feats + 1).grid is tensor.grid


def test_select_mixes_items():
    tensor = batch().select(torch.tensor([True, False, True, False]))
    assert tensor.grid.offsets.tolist() == [0, 2, 2]
    assert tensor.grid.coords.tolist() == [[0, 0, 0], [7, 7, 7]]
    assert tensor.feats[:, 0].tolist() == [0, 6]
    assert tensor.grid.lookup(torch.tensor([[7, 7, 7]]), 0).tolist() == [1]


def test_select_of_nothing_or_with_rows_passes_wrongly():
    assert len(batch().select(torch.zeros(4, dtype=torch.bool))) == 0
    with pytest.raises(BadArgument):
        batch().select(torch.tensor([0, 1]))


def test_upsample_leaves_morton_order():
    parent = batch()
    child = parent.upsample()
    assert child.grid.resolution == 16
    assert child.grid.offsets.tolist() == [0, 24, 32]
    keys = child.grid.keys()
    assert bool((keys.diff() > 0).all())
    assert torch.equal(morton_encode(child.grid.coords) >> 3, morton_encode(parent.grid.coords).repeat_interleave(8))
    assert torch.equal(child.feats, parent.feats.repeat_interleave(8, 0))
