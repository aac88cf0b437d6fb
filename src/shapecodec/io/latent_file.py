"""Latents as one .safetensors file: quantised features, block coordinates as an octree, and what decoding needs.

Layout, format version 1. Metadata `shapecodec`: JSON with the codec, its hash, the resolution, the frames and, for
each level, its shape and encodings. Tensors for level i: `i.feats` (bytes), `i.low` and `i.step` (B, C) float32 unless
bits is 32, `i.octree` (bytes) where the level has coordinates, else `i.offsets` (B + 1,) int64.
"""

from __future__ import annotations

import json
import lzma
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from shapecodec.errors import BadFile, BadLatents, UserError
from shapecodec.io.atomic import atomic_file
from shapecodec.io.octree import octree_decode, octree_encode
from shapecodec.io.quantise import BITS, check_bits, dequantise, quantise
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Similarity

FORMAT, VERSION = "shapecodec-latents", 1
_MAX_BYTES = 8 << 30  # of features once unpacked: refuses compressed files that claim absurd sizes
_MAX_LEVELS, _MAX_BATCH = 64, 1 << 16


def save_latents(latents: Latents, path: str | Path, *, bits: int = 8) -> int:
    """Write latents to one file, whole or not at all; returns its size in bytes.

    Features are rounded to 6, 8 or 16 bits between each channel's own minimum and maximum within each shape
    (`quantise_latents` gives the same numbers in memory), or kept as float32 with 32. Coordinates are exact.

    Args:
        latents: any batch, on any device; coordinates in Morton order.
        path: the file, by convention *.safetensors.
        bits: 6, 8, 16 or 32 a channel.

    Raises:
        BadArgument: bits not offered.
        BadLatents: NaN or infinite features, or coordinates that are repeated, out of order or out of range.
        BadFile: missing or unwritable folder.
    """
    check_bits(bits)
    path = Path(path)
    if len(latents.frames) not in (0, latents.batch_size):
        raise BadLatents(f"{len(latents.frames)} frames for {latents.batch_size} shapes.", where=str(path))
    tensors, levels = dict[str, np.ndarray](), list[dict[str, Any]]()
    for number, level in enumerate(latents.levels):
        levels.append(_pack_level(level, bits, f"{number}.", tensors))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "codec": latents.codec,
        "codec_hash": latents.codec_hash,
        "resolution": latents.resolution,
        "batch": latents.batch_size,
        "frames": [[*frame.centre, frame.scale] for frame in latents.frames],
        "levels": levels,
        "crc32": {name: zlib.crc32(np.ascontiguousarray(tensor).data) for name, tensor in tensors.items()},
    }
    data = save(tensors, {"shapecodec": json.dumps(header, separators=(",", ":"))})
    with atomic_file(path) as file:
        file.write(data)
    return len(data)


def load_latents(path: str | Path) -> Latents:
    """Latents from a file of `save_latents`, on the CPU.

    Raises:
        BadFile: no such file.
        BadLatents: not a latent file, of another format version, truncated, or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile("no such latent file.", where=str(path), hint="check the path.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            return _read(file)
    except SafetensorError as error:
        what = f"not a latent file, or truncated ({error})."
        raise BadLatents(what, where=str(path), hint="write it again with `shapecodec encode`.") from error
    except BadLatents as error:
        raise BadLatents(error.what, where=str(path), hint=error.hint) from error
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, UserError) as error:
        # The header is JSON of any shape; what does not fit surfaces as one of these.
        what = f"the latent file is inconsistent ({type(error).__name__}: {error})."[:300]
        raise BadLatents(what, where=str(path), hint="write it again with `shapecodec encode`.") from error


def _read(file: Any) -> Latents:
    text = (file.metadata() or {}).get("shapecodec")
    header = json.loads(text) if text else {}
    if header.get("format") != FORMAT:
        raise BadLatents("a safetensors file, but not of latents.", hint="give the file that `encode` wrote.")
    if header["version"] != VERSION:
        what = f"latent format version {header['version']}; this version of shapecodec reads {VERSION}."
        raise BadLatents(what, hint="upgrade shapecodec, or encode the mesh again.")
    batch, entries = _whole(header["batch"], _MAX_BATCH), header["levels"]
    if batch < 1 or not 1 <= len(entries) <= _MAX_LEVELS:
        raise BadLatents(f"{batch} shapes in {len(entries)} levels is not a batch of latents.")
    frames = tuple(_frame(values) for values in header["frames"])
    if len(frames) not in (0, batch):
        raise BadLatents(f"{len(frames)} frames for {batch} shapes.")
    tensors = _Tensors(file, header["crc32"], set())
    levels = tuple(_unpack_level(tensors, f"{number}.", entry, batch) for number, entry in enumerate(entries))
    if tensors.read != set(file.keys()):
        raise BadLatents(f"unknown tensors: {sorted(set(file.keys()) - tensors.read)[:5]}.")
    resolution = _whole(header["resolution"], 1 << 20)
    return Latents(levels, resolution, str(header["codec"]), str(header["codec_hash"]), frames)


def _frame(values: list[float]) -> Similarity:
    x, y, z, scale = (float(value) for value in values)
    if not all(map(math.isfinite, (x, y, z, scale))) or scale <= 0:
        raise BadLatents(f"the frame {values} is not a similarity.")
    return Similarity((x, y, z), scale)


def _whole(value: Any, limit: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise BadLatents(f"the header says {value!r} where a whole number up to {limit:,} belongs.")
    return value


@dataclass(frozen=True)
class _Packing:
    """How bytes are stored: `lzma` where that is smaller than `plain`.

    Raw LZMA2 without literal context. Octrees: 0.81 bits a block (mean of 6 test meshes, N = 1024), 0.85 with xz's own
    settings. Features, row by row with lp=4, a position context for each of 16 channels: 8-bit codes shrink by 13 to
    16%, by 83% where a shape is flat, repeated parts (16 principal components of test meshes' blocks); channel by
    channel and differences along the rows are worse, preset 9 is 4 times slower and no smaller.
    """

    lp: int

    def filters(self) -> list[dict[str, int]]:
        return [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": self.lp, "pb": 0, "dict_size": 1 << 24}]

    def pack(self, plain: bytes, shuffled: bytes | None = None) -> tuple[str, np.ndarray]:
        """The smaller of `plain` and the compressed form of `shuffled` (or `plain`)."""
        small = lzma.compress(plain if shuffled is None else shuffled, lzma.FORMAT_RAW, filters=self.filters())
        name, data = ("lzma", small) if len(small) < len(plain) else ("plain", plain)
        return name, np.frombuffer(data, np.uint8)

    def unpack(self, data: bytes, size: int) -> bytes:
        """Exactly `size` bytes; never allocates more, whatever the stream says."""
        machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=self.filters())
        try:
            plain = machine.decompress(data, max_length=size + 1)
        except lzma.LZMAError as error:
            raise BadLatents(f"a compressed stream is damaged ({error}).") from error
        if len(plain) != size or not machine.eof or machine.unused_data:
            raise BadLatents(f"a compressed stream does not hold {size:,} bytes.")
        return plain


_OCTREE, _FEATS = _Packing(lp=0), _Packing(lp=4)


@dataclass(frozen=True)
class _Tensors:
    """The tensors of a file, each checked against the header before and against its checksum after it is read."""

    file: Any
    checksums: dict[str, int]
    read: set[str]

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of the expected type and shape."""
        view = self.file.get_slice(name)
        if view.get_dtype() != dtype or tuple(view.get_shape()) != shape:
            raise BadLatents(f"tensor '{name}' is {view.get_dtype()} {view.get_shape()}, not {dtype} {list(shape)}.")
        self.read.add(name)
        array = np.ascontiguousarray(self.file.get_tensor(name))
        if zlib.crc32(array.data) != self.checksums[name]:
            raise BadLatents(f"tensor '{name}' is damaged: its checksum does not fit.")
        return array

    def bytes(self, name: str, how: str, packing: _Packing, plain: int, full: int) -> bytes:
        """A byte tensor stored `plain` bytes long as it is, or compressed from `full` bytes."""
        if how not in ("plain", "lzma"):
            raise BadLatents(f"tensor '{name}' is encoded as '{how}', which is not known.")
        stored = plain if how == "plain" else _whole(self.file.get_slice(name).get_shape()[0], _MAX_BYTES)
        data = self.array(name, "U8", (stored,)).tobytes()
        return data if how == "plain" else packing.unpack(data, full)


def _pack_level(level: Level, bits: int, prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put the level's arrays into `tensors`; returns its header entry."""
    feats, offsets = level.feats.detach().float().cpu(), level.offsets.cpu()
    entry: dict[str, Any] = {
        "tokens": len(feats),
        "channels": feats.shape[1],
        "bits": bits,
        "resolution": level.resolution,
    }
    if level.coords is not None and level.resolution is not None:
        octree = octree_encode(level.coords, offsets, level.resolution)
        entry["octree"], tensors[prefix + "octree"] = _OCTREE.pack(octree)
        entry["octree_bytes"] = len(octree)
    else:
        tensors[prefix + "offsets"] = offsets.to(torch.int64).numpy()
    if bits == 32:
        if not bool(torch.isfinite(feats).all()):
            raise BadLatents("latents contain NaN or infinite values.")
        raw = feats.numpy().astype("<f4", copy=False)
        entry["feats"], tensors[prefix + "feats"] = _FEATS.pack(raw.tobytes(), _planes(raw))
        return entry
    parts = [quantise(shape, bits) for shape in feats.split(offsets.diff().tolist())]
    tensors[prefix + "low"] = torch.stack([low for _, low, _ in parts]).numpy()
    tensors[prefix + "step"] = torch.stack([step for _, _, step in parts]).numpy()
    codes = torch.cat([code for code, _, _ in parts]).numpy().astype("<u2" if bits == 16 else "u1")
    plain = pack_six(codes.reshape(-1)).tobytes() if bits == 6 else codes.tobytes()
    entry["feats"], tensors[prefix + "feats"] = _FEATS.pack(plain, _planes(codes))
    return entry


def _unpack_level(tensors: _Tensors, prefix: str, entry: dict[str, Any], batch: int) -> Level:
    tokens, channels = _whole(entry["tokens"], 1 << 33), _whole(entry["channels"], 1 << 16)
    bits = entry["bits"]
    if bits not in BITS or channels < 1 or tokens * channels * 4 > _MAX_BYTES:
        raise BadLatents(f"{tokens:,} tokens of {channels:,} channels at {bits} bits are not offered.")
    resolution, coords = entry["resolution"], None
    if resolution is None:
        offsets = torch.from_numpy(tensors.array(prefix + "offsets", "I64", (batch + 1,)))
        if int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
            raise BadLatents("the offsets do not ascend from 0.")
    else:
        side, size = _whole(resolution, 1 << 20), _whole(entry["octree_bytes"], batch + 21 * tokens)
        data = tensors.bytes(prefix + "octree", entry["octree"], _OCTREE, size, size)
        coords, offsets = octree_decode(data, batch, max(side, 1))
    if int(offsets[-1]) != tokens:
        raise BadLatents(f"the header promises {tokens:,} tokens, the coordinates or offsets {int(offsets[-1]):,}.")
    kind = np.dtype({6: "u1", 8: "u1", 16: "<u2", 32: "<f4"}[bits])
    plain = (tokens * channels * bits + 7) // 8
    full = tokens * channels * kind.itemsize
    data = tensors.bytes(prefix + "feats", entry["feats"], _FEATS, plain, full)
    if entry["feats"] == "lzma":
        values = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1).T.copy().view(kind)
    else:
        values = (
            unpack_six(np.frombuffer(data, np.uint8), tokens * channels) if bits == 6 else np.frombuffer(data, kind)
        )
    values = values.reshape(tokens, channels)
    if bits == 32:
        feats = torch.from_numpy(values.astype(np.float32))
    else:
        low = torch.from_numpy(tensors.array(prefix + "low", "F32", (batch, channels)))
        step = torch.from_numpy(tensors.array(prefix + "step", "F32", (batch, channels)))
        feats = _dequantise_shapes(torch.from_numpy(values.astype(np.int32)), low, step, offsets)
    if not bool(torch.isfinite(feats).all()):
        raise BadLatents("the features are NaN or infinite.")
    return Level(feats, offsets, coords, resolution)


def _dequantise_shapes(codes: Tensor, low: Tensor, step: Tensor, offsets: Tensor) -> Tensor:
    shapes = codes.split(offsets.diff().tolist())
    return torch.cat([dequantise(shape, low[i], step[i]) for i, shape in enumerate(shapes)])


def _planes(values: np.ndarray) -> bytes:
    """First all lowest bytes, then all second ones and so on; rows stay together within a plane."""
    return np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T).tobytes()


def pack_six(codes: np.ndarray) -> np.ndarray:
    """(n,) uint8 below 64 -> (ceil(6n / 8),) uint8; four codes in three bytes, lowest bits first."""
    bits = np.unpackbits(codes[:, None], axis=1, count=6, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little")


def unpack_six(data: np.ndarray, count: int) -> np.ndarray:
    """Inverse of `pack_six`: (count,) uint8."""
    bits = np.unpackbits(data, count=6 * count, bitorder="little")
    return np.packbits(bits.reshape(-1, 6), axis=1, bitorder="little").reshape(-1)
