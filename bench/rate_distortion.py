"""Bits a shape against the exact error: Draco and meshopt at several quantisations, our latent files; as JSON, markdown and SVG.

    python bench/rate_distortion.py --data MESHES --out runs/rate --codec log3d-tiny:256 --limit 12
    python bench/rate_distortion.py --data MESHES --out runs/rate --codec log3d-base:512 log3d-base:1024 --peers draco meshopt

Every setting is an evaluation (`shapecodec evaluate`) in a folder of its own below --out: it resumes after any kill, and meshes
reconstructed elsewhere can join the table by `shapecodec evaluate --meshes`. Means are over the shapes that every setting has done.
Distances are of protocol exact-v1: unit-cube lengths, from --points samples to exact closest points. Bits are of the file: Draco at
its highest compression level; meshopt's vertex and index streams of uint16 positions, deflated as one file, as its authors advise;
ours with header, coordinates and transform. A peer codes the triangles that it is given, our latents do not depend on them.
"""

import argparse
import json
import struct
import sys
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rate_picture import picture

from shapecodec.errors import require
from shapecodec.evaluate.methods import CodecMethod, Reconstruction
from shapecodec.evaluate.run import evaluate
from shapecodec.evaluate.shape import Plan
from shapecodec.evaluate.statistics import bootstrap_means
from shapecodec.io.environment import hardware
from shapecodec.io.parse.weld import drop_degenerate, drop_unused, weld_exact
from shapecodec.mesh import Mesh

EXACT = "exact-v1.exact."
ERRORS = {"p95 to input": EXACT + "accuracy.p95", "p95 from input": EXACT + "completeness.p95",
          "mean to input": EXACT + "accuracy.mean", "mean from input": EXACT + "completeness.mean"}  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """A mesh compressor at a number of bits a coordinate."""

    name: str
    bits: int

    def describe(self):
        return {"method": "peer", "codec": self.name, "codec_hash": version(PACKAGES[self.name]), "resolution": None,
                "surface": None, "bits": self.bits}  # fmt: skip

    def open(self, device):
        return self._run

    def _run(self, subject, mesh, frame, clock):
        unit = mesh.transformed(frame)
        clock.skip()
        vertices, faces, size = PEERS[self.name](*unit.numpy(), self.bits)
        clock.lap("encode_and_decode")
        vertices, faces = weld_exact(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int64))
        vertices, faces = drop_unused(vertices, drop_degenerate(faces))
        return Reconstruction(Mesh.from_arrays(vertices, faces), None, {"bytes": size})


def draco(vertices, faces, bits):
    import DracoPy

    data = DracoPy.encode(vertices, faces.astype(np.uint32), quantization_bits=bits, compression_level=10)
    back = DracoPy.decode(data)
    return np.asarray(back.points).reshape(-1, 3), np.asarray(back.faces).reshape(-1, 3), len(data)


def meshopt(vertices, faces, bits):
    """Positions rounded to the longest side's 2^bits - 1 steps; equal ones merged; streams in the order made for them."""
    tool = require("meshoptimizer", extra="bench")  # builds from source: see bench/peers.md
    low = vertices.min(0)
    step = float((vertices.max(0) - low).max()) / (2**bits - 1)
    codes, merged = np.unique(np.round((vertices - low) / step).astype(np.uint16), axis=0, return_inverse=True)
    index = drop_degenerate(merged.reshape(-1)[faces]).astype(np.uint32).reshape(-1)
    rows = np.zeros((len(codes), 4), np.uint16)  # a vertex takes a multiple of four bytes
    rows[:, :3] = codes
    ordered = np.zeros_like(index)
    tool.optimize_vertex_cache_strip(ordered, index, len(index), len(rows))
    fetched = np.zeros_like(rows)
    count = tool.optimize_vertex_fetch(fetched, ordered, rows, len(index), len(rows), 8)
    streams = tool.encode_vertex_buffer(fetched[:count], count, 8), tool.encode_index_buffer(ordered, len(index), count)
    head = struct.pack("<IIII3ff", count, len(index), len(streams[0]), len(streams[1]), *low.tolist(), step)
    size = len(zlib.compress(head + bytes(streams[0]) + bytes(streams[1]), 9))
    packed = tool.decode_vertex_buffer(count, 8, streams[0], np.dtype(np.uint64))  # its type is of a whole vertex
    back = packed.view(np.uint16).reshape(-1, 4)[:, :3]
    corners = tool.decode_index_buffer(len(index), 4, streams[1])
    return back.astype(np.float32) * step + low, np.asarray(corners).reshape(-1, 3).astype(np.int64), size


PEERS = {"draco": draco, "meshopt": meshopt}
PACKAGES = {"draco": "DracoPy", "meshopt": "meshoptimizer"}


def methods(options):
    """(label, setting, method) of every point of the curves."""
    for name in options.peers:
        for bits in options.peer_bits:
            yield name, f"{bits} bits", Peer(name, bits)
    for text in options.codec:
        name, _, resolution = text.partition(":")
        for bits in options.bits:
            method = CodecMethod(name, int(resolution) if resolution else None, options.surface, bits)
            about = method.describe()
            yield f"{about['codec']} at {about['resolution']}", f"{bits} bits", method


def run(label, setting, method, options):
    folder = options.out / f"{label}-{setting}".replace(" ", "-").replace("/", "-")
    plan = Plan(method, options.data, options.split, ("exact-v1",), options.points, 0, options.device, pictures=False)
    result = evaluate(
        plan, folder, resume=(folder / "config.json").exists(), limit=options.limit, workers=options.workers
    )
    print(f"{label}, {setting}: {len(result.rows)} shapes, {result.seconds:.0f} s", file=sys.stderr)
    return {row["name"]: row for row in result.rows if row["status"] == "ok"}, len(result.rows)


def mean(values):
    """Mean, median and 95% interval of values over shapes."""
    values = np.array(values, np.float64)
    found = bootstrap_means(values[:, None])
    return {
        "mean": float(found.mean[0]),
        "low": float(found.low[0]),
        "high": float(found.high[0]),
        "median": float(np.median(values)),
    }


def table(points):
    heads = ["method", "setting", "kB, mean", "kB, median", "bits, mean", *(f"{name}, 1e-3" for name in ERRORS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for point in points:
        sizes = [f"{point['bytes'][key] / 1000:.1f}" for key in ("mean", "median")]
        errors = [f"{1000 * point[name]['mean']:.3f}" for name in ERRORS]
        lines.append(
            "| "
            + " | ".join([point["method"], point["setting"], *sizes, f"{8 * point['bytes']['mean']:,.0f}", *errors])
            + " |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of meshes")
    parser.add_argument("--split", help="of the folder's manifest.csv; test if left out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--limit", type=int, help="the first so many shapes of the fixed order")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["draco"])
    parser.add_argument("--peer-bits", nargs="*", type=int, default=[8, 9, 10, 11, 12, 14, 16])
    parser.add_argument("--codec", nargs="*", default=["log3d-tiny:256"], help="NAME:RESOLUTION")
    parser.add_argument("--bits", nargs="*", type=int, default=[6, 8, 16])
    parser.add_argument("--surface", help="of our codecs, such as snapped; theirs if left out")
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = [(label, setting, *run(label, setting, method, options)) for label, setting, method in methods(options)]
    common = sorted(set.intersection(*(set(rows) for _, _, rows, _ in found)))
    if not common:
        raise SystemExit("no shape was done by every setting")
    points = [
        {
            "method": label, "setting": setting, "failed": total - len(rows),
            "bytes": mean([rows[name]["bytes"] for name in common]),
            **{key: mean([rows[name][column] for name in common]) for key, column in ERRORS.items()},
        }
        for label, setting, rows, total in found
    ]  # fmt: skip
    report = {
        "hardware": hardware(options.device),
        "versions": {name: version(PACKAGES[name]) for name in options.peers},
        "protocol": "exact-v1", "points": options.points, "data": options.data.name, "shapes": len(common), "curves": points,
    }  # fmt: skip
    (options.out / "rate_distortion.json").write_text(json.dumps(report, indent=1) + "\n")
    title = f"{len(common)} shapes of {options.data.name}, protocol exact-v1"
    (options.out / "rate_distortion.svg").write_text(picture(points, "p95 from input", title))
    print(json.dumps(report, indent=1))
    print("\n" + table(points))


if __name__ == "__main__":
    main()
