"""CropPool: batches of different shapes, functions of (seed, step, rank) whatever was asked before."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.data.collection import build_pool
from shapecodec.data.pool import CropPool
from shapecodec.data.source import PoolConfig, SourceConfig
from shapecodec.errors import BadArgument

CONFIG = SourceConfig(
    procedural=6, budget=400, resolutions=((32, 0.5), (64, 0.5)), pool=PoolConfig(crop=16, crops=3, kept=2, capacity=4)
)


@pytest.fixture(scope="module")
def made():
    codec = Log3D(Log3DConfig(resolution=32, width=4, depth=0))
    meshes = build_pool(6, 0)
    return lambda config=CONFIG: CropPool(codec.prepare, None, meshes, config, config.pool)


def test_batch_depends_on_the_step_alone(made):
    walked, fresh = made(), made()
    batches = [walked.batch(step, 0, 1, "cpu") for step in range(4)]
    again = fresh.batch(3, 0, 1, "cpu")
    assert torch.equal(batches[3].values, again.values) and torch.equal(batches[3].grid.coords, again.grid.coords)
    assert not any(torch.equal(a.values, b.values) for a, b in pairwise(batches))
    assert not torch.equal(again.values[:8], made().batch(3, 1, 2, "cpu").values[:8])


def test_batch_is_packed_crops_within_the_finest_grid(made):
    batch = made().batch(0, 0, 1, "cpu")
    counts = batch.grid.offsets.diff()
    assert len(counts) == 3 and counts.max() <= 16 and batch.tokens == int(counts.sum())
    assert batch.values.dtype == torch.float32 and batch.values.shape[1:] == (12, 12, 12)
    assert batch.grid.resolution == 8 and batch.grid.coords.max() < 8


def test_ring_forgets_old_shapes(made):
    pool = made(replace(CONFIG, pool=replace(CONFIG.pool, fresh=3)))
    for step in range(3):
        pool.batch(step, 0, 1, "cpu")
        assert len(pool._ring) == 4


def test_more_crops_than_shapes_are_refused():
    with pytest.raises(BadArgument, match="more crops"):
        PoolConfig(crops=5, capacity=4)
