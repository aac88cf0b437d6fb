"""Latents come back as `quantise_latents` says; whatever else lies in a file is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from shapecodec.errors import BadArgument, BadFile, BadLatents
from shapecodec.grid import SparseGrid
from shapecodec.io.latent_file import load_latents, pack_six, save_latents, unpack_six
from shapecodec.io.octree import octree_decode, octree_encode
from shapecodec.io.quantise import BITS, dequantise, quantise, quantise_latents
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Similarity


def grid(count: int, resolution: int, seed: int = 0) -> SparseGrid:
    random = torch.Generator().manual_seed(seed)
    coords = torch.unique(torch.randint(0, resolution, (count, 3), generator=random), dim=0)
    return SparseGrid.build(coords, resolution)[0]


def batch() -> Latents:
    """Three shapes, one of them empty, with a level of voxels and an unordered one."""
    blocks = SparseGrid.concatenate([grid(300, 37), grid(0, 37), grid(1, 37, seed=1)])
    random = torch.Generator().manual_seed(0)
    voxels = Level(torch.randn(len(blocks), 16, generator=random), blocks.offsets, blocks.coords, 37)
    plain = Level(torch.randn(10, 5, generator=random) * 1e3, torch.tensor([0, 4, 4, 10]))
    frames = (Similarity(), Similarity((1e6 / 3, 0.1, -7.0), 1 / 3), Similarity((0.1, 0.2, 0.3), 1e-3))
    return Latents((voxels, plain), 296, "log3d", "0123456789abcdef", frames)


def assert_same(found: Latents, expected: Latents) -> None:
    assert (found.resolution, found.codec, found.codec_hash) == (
        expected.resolution,
        expected.codec,
        expected.codec_hash,
    )
    assert found.frames == expected.frames
    for one, other in zip(found.levels, expected.levels, strict=True):
        assert torch.equal(one.feats, other.feats)
        assert torch.equal(one.offsets, other.offsets)
        assert one.resolution == other.resolution
        assert (one.coords is None) == (other.coords is None)
        if one.coords is not None and other.coords is not None:
            assert one.coords.dtype == torch.int32
            assert torch.equal(one.coords, other.coords)


@pytest.mark.parametrize("bits", BITS)
def test_file_and_memory_give_the_same_numbers(tmp_path, bits):
    latents, path = batch(), tmp_path / "a.safetensors"
    size = save_latents(latents, path, bits=bits)
    assert size == path.stat().st_size
    found = load_latents(path)
    assert_same(found, quantise_latents(latents, bits))
    for one, other in zip(found.levels, latents.levels, strict=True):
        spread = float(other.feats.max() - other.feats.min())
        assert float((one.feats - other.feats).abs().max()) <= (0 if bits == 32 else spread / (2**bits - 1))


@pytest.mark.parametrize("bits", BITS)
def test_repeating_latents_are_compressed(tmp_path, bits):
    coords = torch.cartesian_prod(*[torch.arange(16, dtype=torch.int32)] * 3)
    whole = SparseGrid.build(coords, 16)[0]
    level = Level(torch.eye(16).repeat(256, 1), whole.offsets, whole.coords, 16)
    latents = Latents((level,), 128, "log3d")
    assert save_latents(latents, tmp_path / "a", bits=bits) < 3000
    assert_same(load_latents(tmp_path / "a"), quantise_latents(latents, bits))


def test_a_shape_does_not_depend_on_its_batch(tmp_path):
    latents = batch()
    level = latents.levels[1]
    alone = Latents((Level(level.feats[4:], torch.tensor([0, 6])),), 296)
    together = quantise_latents(latents, 8).levels[1].feats[4:]
    assert torch.equal(quantise_latents(alone, 8).levels[0].feats, together)


def test_sizes(tmp_path):
    """8 bits a channel and below 7 bits of random coordinates; 6 bits really take 6."""
    blocks = grid(20_000, 128)
    feats = torch.rand(len(blocks), 16, generator=torch.Generator().manual_seed(0))
    latents = Latents((Level(feats, blocks.offsets, blocks.coords, 128),), 1024)
    sizes = {bits: save_latents(latents, tmp_path / "a", bits=bits) for bits in BITS}
    for bits in (6, 8, 16):
        assert sizes[bits] * 8 < len(blocks) * (16 * bits + 14) + 8 * 2000
    assert sizes[32] * 8 < len(blocks) * (16 * 32 + 14) + 8 * 2000


@pytest.mark.parametrize("bits", [6, 8, 16])
def test_quantise_edges(bits):
    """Empty, constant, denormal and huge channels."""
    codes, low, step = quantise(torch.zeros(0, 3), bits)
    assert dequantise(codes, low, step).shape == (0, 3)
    feats = torch.tensor([[1.5, 0.0, -1e38, 5.0], [1.5, 1e-45, 1e38, 5.0], [1.5, 0.0, 0.0, 5.0000005]])
    codes, low, step = quantise(feats, bits)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 2**bits
    back = dequantise(codes, low, step)
    assert bool(((back - feats).abs() <= (feats.amax(0) - feats.amin(0)) / (2**bits - 1) + 1e-6).all())
    with pytest.raises(BadLatents, match="NaN"):
        quantise(torch.tensor([[float("nan")]]), bits)


@pytest.mark.gpu
def test_quantise_on_the_gpu_gives_the_same_bits(device):
    feats = torch.randn(100_000, 16, generator=torch.Generator().manual_seed(0))
    for bits in (6, 8, 16):
        here, there = quantise(feats, bits), quantise(feats.to(device), bits)
        for one, other in zip(here, there, strict=True):
            assert torch.equal(one, other.cpu())
        assert torch.equal(dequantise(*here), dequantise(*there).cpu())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 1001])
def test_six_bit_packing(count):
    codes = np.random.default_rng(count).integers(0, 64, count).astype(np.uint8)
    packed = pack_six(codes)
    assert len(packed) == (6 * count + 7) // 8
    np.testing.assert_array_equal(unpack_six(packed, count), codes)


@pytest.mark.parametrize("resolution", [1, 2, 3, 8, 100, 1 << 18])
@pytest.mark.parametrize("counts", [(0,), (1,), (0, 0), (50, 0, 7, 1)])
def test_octree_round_trip(counts, resolution):
    grids = SparseGrid.concatenate([grid(count, resolution, seed) for seed, count in enumerate(counts)])
    data = octree_encode(grids.coords, grids.offsets, resolution)
    coords, offsets = octree_decode(data, len(counts), resolution)
    assert torch.equal(coords, grids.coords)
    assert torch.equal(offsets, grids.offsets)


def test_octree_is_what_it_says():
    """Two voxels of 4^3: (0, 0, 0) and (3, 2, 1), x most significant."""
    coords = torch.tensor([[0, 0, 0], [3, 2, 1]], dtype=torch.int32)
    assert octree_encode(coords, torch.tensor([0, 2]), 4) == bytes([1 | 1 << 6, 1, 1 << 5])


@pytest.mark.parametrize("coords", [[[1, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]], [[0, 0, 4]], [[0, 0, -1]]])
def test_coordinates_that_a_decoder_could_not_return(coords, tmp_path):
    level = Level(
        torch.zeros(len(coords), 2), torch.tensor([0, len(coords)]), torch.tensor(coords, dtype=torch.int32), 4
    )
    with pytest.raises(BadLatents, match=r"Morton order|outside"):
        save_latents(Latents((level,), 32), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "resolution"), [(b"", 4), (b"\1", 4), (b"\1\1\1", 4), (b"\1\0", 4), (b"\x80\x80", 3), (b"\2", 1)]
)
def test_bad_octrees(data, resolution):
    with pytest.raises(BadLatents):
        octree_decode(data, 1, resolution)


def test_bad_arguments(tmp_path):
    with pytest.raises(BadArgument, match="bits=7"):
        save_latents(batch(), tmp_path / "a", bits=7)
    with pytest.raises(BadFile, match="does not exist"):
        save_latents(batch(), tmp_path / "gone" / "a")
    with pytest.raises(BadFile, match="no such latent file"):
        load_latents(tmp_path / "gone")
    bad = Latents((Level(torch.full((1, 2), float("inf")), torch.tensor([0, 1])),), 32)
    for bits in BITS:
        with pytest.raises(BadLatents, match="NaN or infinite"):
            save_latents(bad, tmp_path / "a", bits=bits)


@pytest.mark.parametrize("cut", [0, 5, 100, -200, -1])
def test_truncated_files(tmp_path, cut):
    path = tmp_path / "a.safetensors"
    save_latents(batch(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadLatents, match="truncated"):
        load_latents(path)


def test_foreign_files(tmp_path):
    (tmp_path / "a").write_text("solid cube")
    with pytest.raises(BadLatents, match="not a latent file"):
        load_latents(tmp_path / "a")
    save_torch({"weight": torch.zeros(3)}, tmp_path / "b")
    with pytest.raises(BadLatents, match="but not of latents"):
        load_latents(tmp_path / "b")


CHANGES = {
    "version": (lambda h: h.update(version=2), "format version 2"),
    "batch": (lambda h: h.update(batch=4), "frames"),
    "huge batch": (lambda h: h.update(batch=10**15, frames=[]), "whole number"),
    "frames": (lambda h: h["frames"][0].pop(), "inconsistent"),
    "infinite frame": (lambda h: h["frames"][0].__setitem__(3, float("inf")), "similarity"),
    "negative scale": (lambda h: h["frames"][0].__setitem__(3, -1.0), "similarity"),
    "tokens": (lambda h: h["levels"][0].update(tokens=7), "whole number"),
    "huge tokens": (lambda h: h["levels"][0].update(tokens=1 << 32), "not offered"),
    "channels": (lambda h: h["levels"][0].update(channels=15), "bytes|inconsistent"),
    "huge channels": (lambda h: h["levels"][0].update(channels=10**12), "whole number"),
    "bits": (lambda h: h["levels"][0].update(bits=5), "not offered"),
    "other bits": (lambda h: h["levels"][1].update(bits=16), "U8"),
    "resolution": (lambda h: h["levels"][0].update(resolution=8), "octree"),
    "octree size": (lambda h: h["levels"][0].update(octree_bytes=9), "bytes"),
    "coding": (lambda h: h["levels"][0].update(feats="zip"), "zip"),
    "level is missing": (lambda h: h["levels"].pop(), "unknown tensors"),
    "level too many": (lambda h: h["levels"].append(h["levels"][0]), "a latent file"),
    "no levels": (lambda h: h.update(levels=[]), "0 levels"),
    "words": (lambda h: h.update(resolution="many"), "whole number"),
    "missing": (lambda h: h.pop("resolution"), "inconsistent"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_headers_that_do_not_fit(tmp_path, case):
    change, message = CHANGES[case]
    path = tmp_path / "a.safetensors"
    save_latents(batch(), path)
    header = read_header(path)
    change(header)
    save_file(load_file(path), path, {"shapecodec": json.dumps(header)})
    with pytest.raises(BadLatents, match=message):
        load_latents(path)


def read_header(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["shapecodec"])


@pytest.mark.parametrize("name", ["0.octree", "0.feats", "0.low", "1.step", "1.offsets"])
def test_tensors_of_another_shape(tmp_path, name):
    path = tmp_path / "a.safetensors"
    save_latents(batch(), path)
    tensors, header = load_file(path), {"shapecodec": json.dumps(read_header(path))}
    for wrong in (tensors[name][:-1].copy(), tensors[name].astype(np.float64)):
        save_file(tensors | {name: wrong}, path, header)
        with pytest.raises(BadLatents):
            load_latents(path)


def test_flipped_bytes(tmp_path):
    """Damage anywhere is seen, but for the white space and the names of the header."""
    path = tmp_path / "a.safetensors"
    save_latents(batch(), path)
    good, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        data = bytearray(good)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            latents = load_latents(path)
        except BadLatents:
            refused += 1
            continue
        for level in latents.levels:
            assert bool(torch.isfinite(level.feats).all())
            assert level.coords is None or int(level.coords.max()) < (level.resolution or 0)
    assert refused > 90
