"""BlockSource: a batch is a function of (seed, step, rank); crops are exact; packing keeps to the budget."""

import dataclasses
import json
import threading
import time

import pytest
import torch

from shapecodec.codecs.log3d.inputs import BlockInputs
from shapecodec.data.augment import Augment
from shapecodec.data.collection import MeshCollection, build_pool
from shapecodec.data.pool import open_source
from shapecodec.data.prefetch import Prefetched
from shapecodec.data.source import REACH_VOX, BlockSource, SourceConfig, _inside, _near, rows_around
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.block_halo import gather_halo
from shapecodec.ops.udf_blocks import udf_blocks
from shapecodec.rng import rng
from shapecodec.train.config import to_json


def exact(mesh, rng=None, *, resolution=None):
    grid, values = udf_blocks(mesh.vertices, mesh.faces, resolution)
    return BlockInputs(grid, gather_halo(values, grid, 2), resolution)


def cheap(mesh, rng=None, *, resolution=None):
    """Blocks that hold a vertex or a face's centre: enough for packing."""
    points = torch.cat([mesh.vertices, mesh.vertices[mesh.faces].mean(1)])
    coords = ((points + 0.5) * (resolution // 8)).long().unique(dim=0)
    grid, _ = SparseGrid.build(coords, resolution // 8)
    return BlockInputs(grid, grid.coords.float().sum(1).view(-1, 1, 1, 1).expand(-1, 12, 12, 12), resolution)


@pytest.fixture(scope="module")
def pool():
    return build_pool(12, seed=0)


CONFIG = SourceConfig(budget=600, resolutions=((128, 0.5), (256, 0.5)))


def same(one, two):
    return torch.equal(one.grid.coords, two.grid.coords) and torch.equal(one.values, two.values)


def test_same_counters_same_batch_and_others_differ(pool):
    batches = [
        BlockSource(cheap, pool, None, CONFIG).batch(step, rank, 4, "cpu") for step, rank in ((3, 1), (3, 1), (3, 2))
    ]
    assert same(batches[0], batches[1]) and torch.equal(batches[0].grid.offsets, batches[1].grid.offsets)
    assert batches[0].tokens != batches[2].tokens or not same(batches[0], batches[2])
    assert batches[0].resolution == batches[2].resolution, "a step has one resolution on every rank"


def test_order_of_asking_changes_nothing(pool):
    source = BlockSource(cheap, None, pool, CONFIG)
    forward = [source.batch(step, 0, 1, "cpu") for step in range(3)]
    backward = [source.batch(step, 0, 1, "cpu") for step in reversed(range(3))][::-1]
    assert all(same(one, two) for one, two in zip(forward, backward, strict=True))


def test_budget_is_kept_and_nearly_used(pool):
    source = BlockSource(cheap, pool, pool, CONFIG)
    tokens = [source.batch(step, 0, 1, "cpu").tokens for step in range(8)]
    assert max(tokens) <= CONFIG.budget and min(tokens) >= CONFIG.filled * CONFIG.budget


def test_resolutions_follow_their_probabilities(pool):
    config = SourceConfig(resolutions=((256, 0.35), (512, 0.45), (1024, 0.2)))
    drawn = [BlockSource(cheap, pool, None, config).resolution(step) for step in range(1000)]
    for size, probability in config.resolutions:
        assert drawn.count(size) / 1000 == pytest.approx(probability, abs=0.06)


def test_detailed_meshes_come_more_often(pool):
    source = BlockSource(cheap, pool, None, CONFIG)
    picks = torch.tensor([source._pick(rng(0, step))[1] for step in range(3000)])
    wanted = pool.face_counts().sqrt()
    assert torch.allclose(torch.bincount(picks, minlength=len(pool)) / 3000, wanted / wanted.sum(), atol=0.03)


def test_share_of_real_meshes(pool):
    other = build_pool(2, seed=5)
    source = BlockSource(cheap, pool, other, SourceConfig(real=0.7))
    real = sum(source._pick(rng(0, step))[0] is pool for step in range(2000))
    assert real / 2000 == pytest.approx(0.7, abs=0.04)


def test_crop_is_a_cube_around_a_block():
    coords = torch.cartesian_prod(*[torch.arange(16)] * 3)
    grid, _ = SparseGrid.build(coords, 16)
    row = int((grid.coords == 8).all(1).nonzero())
    rows = rows_around(grid, row, 125)
    assert (rows.diff() > 0).all() and len(rows) == 125
    kept = grid.coords[rows]
    assert kept.min() == 6 and kept.max() == 10


def test_cropped_blocks_are_those_of_the_whole_shape(pool):
    """Triangles far from a crop are left out: its blocks must not feel it."""
    resolution = 128
    mesh = next(pool.mesh(i) for i in range(len(pool)) if 500 < len(pool.mesh(i).faces) < 6000)
    whole = exact(mesh, resolution=resolution)
    centre = mesh.vertices[mesh.faces[len(mesh.faces) // 2]].mean(0)
    low, high = centre - 0.2, centre + 0.2
    near = _near(mesh, low, high)
    assert len(near.faces) < len(mesh.faces)
    part = exact(near, resolution=resolution)
    part = part.crop(_inside(part.grid, resolution, low, high))
    rows = whole.grid.lookup(part.grid.coords)
    assert part.tokens > 10 and (rows >= 0).all()
    assert torch.equal(whole.values[rows], part.values)
    inside = _inside(whole.grid, resolution, low, high)
    assert torch.equal(whole.grid.coords[inside], part.grid.coords), "no block of the region is lost"
    assert REACH_VOX == 6


def test_real_prepare_packs_and_crops(pool):
    source = BlockSource(exact, None, pool, SourceConfig(budget=300, resolutions=((64, 0.5), (128, 0.5))))
    for step in range(2):
        batch = source.batch(step, 0, 1, "cpu")
        assert batch.values.shape == (batch.tokens, 12, 12, 12) and 0 < batch.tokens <= 300
        assert batch.grid.offsets[-1] == batch.tokens and (batch.grid.keys().diff() > 0).all()
        assert float(batch.values.min()) >= 0 and float(batch.values.max()) <= 1
        assert (batch.values[:, 2:-2, 2:-2, 2:-2].amin((1, 2, 3)) < 1).all(), "every block is active"


class Slow:
    """A source whose batches take differently long."""

    config = None

    def __init__(self):
        self.made, self.threads = [], set()

    def batch(self, step, rank, world, device):
        time.sleep(0.002 * ((step * 7) % 5))
        self.made.append((step, rank))
        self.threads.add(threading.get_ident())
        return torch.tensor([step, rank, world])


def test_prefetched_batches_are_the_sources():
    slow = Slow()
    ahead = Prefetched(slow)
    for step in (0, 1, 2, 3, 10, 11, 2):
        assert ahead.batch(step, 0, 1, "cpu").tolist() == [step, 0, 1]
    ahead.close_pending()
    assert threading.get_ident() not in slow.threads and len(slow.threads) == 1


def test_prefetch_foresees_accumulation_over_processes():
    slow = Slow()
    ahead = Prefetched(slow, processes=2)
    calls = [(step, shard) for step in range(3) for shard in (1, 3, 5)]
    for step, shard in calls:
        assert ahead.batch(step, shard, 6, "cpu").tolist() == [step, shard, 6]
    ahead.close_pending()
    assert slow.made == [*calls, (3, 1)], "nothing was made in vain"


def test_prefetch_passes_errors_on(pool):
    source = BlockSource(lambda mesh, rng=None, resolution=None: 1 / 0, None, pool, CONFIG)
    with pytest.raises(ZeroDivisionError):
        Prefetched(source).batch(0, 0, 1, "cpu")


def test_configuration_survives_json(folder):
    config = SourceConfig(data=str(folder), procedural=2, augment=Augment(fill=(0.7, 0.8)), budget=100)
    assert SourceConfig.from_json(json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(BadArgument, match="colour"):
        SourceConfig.from_json({"colour": 1})
    source = open_source(cheap, config)
    assert isinstance(source.real, MeshCollection) and source.procedural is not None
    assert (len(source.real), len(source.procedural)) == (2, 2)
    with pytest.raises(BadArgument, match="neither"):
        open_source(cheap, dataclasses.replace(config, data=None, procedural=0))


def test_budget_out_of_range(pool):
    with pytest.raises(BadArgument):
        BlockSource(cheap, pool, None, SourceConfig(budget=0))


@pytest.mark.gpu
def test_prefetch_on_cuda_is_the_source(device, pool):
    source = BlockSource(exact, None, pool.to(device), SourceConfig(budget=4000, resolutions=((256, 1.0),)))
    ahead = Prefetched(source)
    for step in range(8):
        batch = ahead.batch(step, 0, 1, device)
        work = batch.values.sum() * 2
        alone = source.batch(step, 0, 1, torch.device(device))
        assert same(batch, alone) and float(work) == pytest.approx(float(alone.values.sum() * 2))
