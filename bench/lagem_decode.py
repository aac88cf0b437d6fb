"""A LaGeM codec on meshes: more vectors than it was trained with, and queries against a dense grid; as JSON.

    python bench/lagem_decode.py --codec lagem-small --data FOLDER --limit 10
    python bench/lagem_decode.py --data FOLDER --limit 2 --factors 1 2 4 --resolutions 256 --dense 256 --points 20000
    python bench/lagem_decode.py --data FOLDER --resolutions 256 512 1024 --dense 512 --device cuda

For each mesh and factor: the decoded function's IoU with exact labels (50,000 points of the unit ball), the latents' bytes at
8 bits, and of the mesh at the first resolution what `lagem-v1` prints (Chamfer sum x 100, F(0.02) in per cent) beside the floor.
At factor 1 for each resolution: queries, how many times fewer they are than voxels, seconds; with --dense every voxel is evaluated,
too, and `same_surface` says whether the meshes have the same triangles. The last rows are means over the meshes.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from query_field import Timed, against_dense

from shapecodec.codecs.lagem import Lagem, QueryField
from shapecodec.codecs.lagem.inputs import RADIUS
from shapecodec.codecs.registry import load_codec
from shapecodec.data.manifest import read_manifest
from shapecodec.data.shape_pools import occupancy_queries
from shapecodec.errors import BadMesh
from shapecodec.evaluate.measure import measure
from shapecodec.io.mesh_files import read_mesh
from shapecodec.io.quantise import quantise_latents
from shapecodec.rng import numpy_rng

PLACES = 50_000  # volume points of the IoU


def waited(device):
    """Seconds, once the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def with_factor(codec, mesh, unit, frame, args, device):
    """One mesh with the codec's present number of vectors."""
    start = waited(device)
    inputs = codec.prepare(unit, resolution=args.resolutions[0])
    prepared = waited(device)
    latents = quantise_latents(codec.encode(inputs).to("cpu"), 8).to(device)
    encoded = waited(device)
    field = codec.decode(latents)
    places, inside = occupancy_queries(unit, PLACES, radius=1.0)
    guess = field.sample(places * RADIUS) > field.level
    row = {
        "vectors": list(codec.tokens),
        "bytes": sum(level.feats.numel() for level in latents.levels),
        "inside_share": float(inside.float().mean()),
        "iou": int((guess & inside).sum()) / max(int((guess | inside).sum()), 1),
        "prepare_s": prepared - start,
        "encode_s": encoded - prepared,
    }
    start = waited(device)
    try:
        rebuilt, report = field.to_surface(args.resolutions[0])
    except BadMesh as error:
        return {**row, "error": str(error)}, field
    row |= {"decode_s": waited(device) - start, "queries": report.queries, "ratio": report.ratio}
    cube, own = mesh.normalise()
    theirs = rebuilt.transformed(frame, inverse=True).transformed(own)
    scores = measure(theirs, cube, ["lagem-v1"], resolution=None, points=args.points, seed=0, device=device)["lagem-v1"]
    for name, printed in scores["paper"].items():
        row[name], row[f"{name}_floor"] = printed["value"], printed["floor"]
    return row, field


def at_resolution(field, resolution, args, device):
    """Queries and seconds of one resolution, and whether a dense evaluation finds another surface."""
    values = Timed(lambda points: field.values(points) - field.level, device)
    shifted = QueryField(values, resolution, chunk=field.chunk, device=device)
    start = waited(device)
    mesh, report = shifted.to_surface()
    row = {"resolution": resolution, "seconds": waited(device) - start, "field_seconds": values.seconds}
    row |= {"queries": report.queries, "dense": report.dense, "ratio": report.ratio, "triangles": len(mesh.faces)}
    if resolution in args.dense:
        row["against_dense"] = against_dense(values, mesh, resolution, device, field.chunk)
    return row


def one_mesh(codec, path, args, device):
    """Every factor and every resolution for one file."""
    mesh = read_mesh(path).to(device)
    unit, frame = codec.normalise(mesh)
    row = {"name": Path(path).stem, "factors": {}, "resolutions": []}
    for factor in args.factors:
        codec.scale_tokens(factor)
        row["factors"][f"{factor:g}"], field = with_factor(codec, mesh, unit, frame, args, device)
        if factor == 1 and "error" not in row["factors"]["1"]:
            row["resolutions"] = [at_resolution(field, resolution, args, device) for resolution in args.resolutions]
    codec.scale_tokens(1.0)
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def mean_of(rows):
    """Means of the numbers that all rows have."""
    names = [key for key, value in rows[0].items() if isinstance(value, int | float)] if rows else []
    return {"meshes": len(rows)} | {name: statistics.mean(row[name] for row in rows) for name in names}


def means(rows, args):
    """Over the meshes with an inside that decoded with every factor."""
    good = [
        row
        for row in rows
        if all("error" not in one and one["inside_share"] > 0.005 for one in row["factors"].values())
    ]
    found = {f"{factor:g}": mean_of([row["factors"][f"{factor:g}"] for row in good]) for factor in args.factors}
    for number, resolution in enumerate(args.resolutions):
        each = [row["resolutions"][number] for row in rows if row["resolutions"]]
        found[f"{resolution}^3"] = mean_of(each)
        compared = [row["against_dense"] for row in each if "against_dense" in row]
        if compared:
            found[f"{resolution}^3"] |= {
                "same_surface": sum(row["same_surface"] for row in compared),
                "lost_components": sum(row["lost_components"] for row in compared),
            }
    return found


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="lagem-small")
    parser.add_argument("--mesh", type=Path, nargs="*", default=[], help="mesh files")
    parser.add_argument("--data", type=Path, help="or a folder with a manifest.csv")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="so many meshes of a random order that is always the same")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256])
    parser.add_argument("--dense", type=int, nargs="*", default=[], help="resolutions that are also evaluated densely")
    parser.add_argument("--points", type=int, default=100_000, help="samples on each mesh")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    paths = list(args.mesh)
    if args.data:
        files = [args.data / entry.file for entry in read_manifest(args.data, args.split)]
        paths += [files[index] for index in numpy_rng(0, purpose="lagem decode").permutation(len(files))]
    codec = load_codec(args.codec, device)
    if not isinstance(codec, Lagem):
        raise SystemExit("this needs a LaGeM codec.")
    rows = [one_mesh(codec, path, args, device) for path in paths[: args.limit]]
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(json.dumps({"codec": codec.name, "hardware": hardware, "rows": rows, "means": means(rows, args)}, indent=1))


if __name__ == "__main__":
    main()
