"""Pools in a file: what is asked for is what is found, whole, once, and by all who wait for it."""

import dataclasses
import multiprocessing
import time

import pytest
import torch

from shapecodec.data.occupancy import OccupancySourceConfig, open_occupancy_source
from shapecodec.data.pool_file import load_pools, pools_key, save_pools, stored_pools
from shapecodec.data.shape_pools import PoolSizes, ShapePools
from shapecodec.errors import BadFile

SIZES = PoolSizes(surface=64, inside=32, outside=32, near=32, least_inside=4)
CONFIG = OccupancySourceConfig(
    procedural=6, shapes=4, points=32, latents=8, volume=8, near=8, stored=SIZES, normals=True
)


def pools(count=3, distances=True):
    generator = torch.Generator().manual_seed(count)

    def draw(*size):
        return torch.randn(count, *size, generator=generator)

    names = tuple(f"shape {index}" for index in range(count))
    return ShapePools(
        draw(4, 3), draw(4, 3).half(), draw(2, 3), draw(2, 3), draw(5, 3), draw(5) > 0, draw(),
        draw(9) if distances else None, names, ("a sheet",),
    )  # fmt: skip


def same(one, two):
    columns = [f.name for f in dataclasses.fields(ShapePools)]
    pairs = [(getattr(one, name), getattr(two, name)) for name in columns]
    return all(torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("distances", [True, False])
def test_a_file_that_gives_back_something_else(tmp_path, distances):
    made = pools(distances=distances)
    save_pools(made, tmp_path / "p.safetensors", "key")
    assert same(load_pools(tmp_path / "p.safetensors", "key"), made)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_source_from_a_file_draws_other_batches(tmp_path):
    fresh = open_occupancy_source(CONFIG)
    first, second = (open_occupancy_source(CONFIG, pools=tmp_path) for _ in range(2))
    assert len(list(tmp_path.glob("pools-*.safetensors"))) == 1
    for source in (first, second):
        assert same(source.pools, fresh.pools) and source.counts == fresh.counts
        assert torch.equal(source.batch(3, 0, 1, "cpu").queries, fresh.batch(3, 0, 1, "cpu").queries)


def test_settings_that_find_pools_of_others(tmp_path):
    open_occupancy_source(CONFIG, pools=tmp_path)
    other = [
        dataclasses.replace(CONFIG, seed=1),
        dataclasses.replace(CONFIG, procedural=5),
        dataclasses.replace(CONFIG, stored=dataclasses.replace(SIZES, near=48)),
    ]
    for number, config in enumerate(other):
        open_occupancy_source(config, pools=tmp_path)
        assert len(list(tmp_path.glob("pools-*.safetensors"))) == number + 2
    # what is drawn from the pools, and how it is seen, needs none of its own
    open_occupancy_source(dataclasses.replace(CONFIG, bend=0.5, shapes=2, rotate=0.0), pools=tmp_path)
    assert len(list(tmp_path.glob("pools-*.safetensors"))) == len(other) + 1


@pytest.mark.parametrize("place", [10, 200, 400, 700, 1100, -3])
def test_a_flipped_byte_goes_unseen(tmp_path, place):
    path = tmp_path / "p.safetensors"
    save_pools(pools(), path, "key")
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BadFile):
        load_pools(path, "key")


def test_a_truncated_or_foreign_file(tmp_path):
    path = tmp_path / "p.safetensors"
    save_pools(pools(), path, "key")
    with pytest.raises(BadFile, match="expected"):
        load_pools(path, "another")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadFile, match="readable"):
        load_pools(path, "key")
    with pytest.raises(BadFile, match="no such file"):
        load_pools(tmp_path / "none.safetensors")


def test_a_death_while_writing_leaves_something_behind(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("shapecodec.data.pool_file.os.fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        stored_pools(tmp_path, "key", pools, "cpu")
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*.part"))
    monkeypatch.undo()
    assert same(stored_pools(tmp_path, "key", pools, "cpu"), pools())


def ask(folder, queue):
    def make():
        queue.put("made")
        time.sleep(0.5)
        return pools()

    queue.put(same(stored_pools(folder, "key", make, "cpu"), pools()))


def test_processes_that_each_make_their_own(tmp_path):
    context = multiprocessing.get_context("fork")  # nothing runs here that a fork would break
    queue = context.SimpleQueue()
    started = [context.Process(target=ask, args=(tmp_path, queue)) for _ in range(3)]
    for process in started:
        process.start()
    found = [queue.get() for _ in range(4)]
    for process in started:
        process.join()
    assert found.count("made") == 1 and found.count(True) == 3


def test_key_that_forgets_a_setting():
    keys = {pools_key({"seed": seed, "procedural": count}) for seed in range(3) for count in range(3)}
    assert len(keys) == 9 and pools_key({"a": 1, "b": 2}) == pools_key({"b": 2, "a": 1})
