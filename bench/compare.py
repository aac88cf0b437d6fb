"""A full comparison under every protocol: seconds in all and of its parts, as JSON with the machine.

    python bench/compare.py                              # two tori of 102,400 faces, noise and scale between them
    python bench/compare.py --meshes a.glb b.glb
    python bench/compare.py --floors DATA                # what a perfect reconstruction scores, by detail level

Each time is the best of --repeats after a warm-up that compiles. `process_seconds` sums over threads: on a shared machine
it is steadier than the wall clock. `--floors` reads DATA/manifest.csv and computes the floors from the meshes' areas.
"""

import argparse
import csv
import json
import math
import os
import platform
import resource
from pathlib import Path

import numba
import torch
from metrics import best, tori

from shapecodec.evaluate.hausdorff import hausdorff
from shapecodec.evaluate.metrics import compare_all
from shapecodec.evaluate.normal_maps import normal_map_scores
from shapecodec.evaluate.pair import Pair
from shapecodec.evaluate.protocol import PROTOCOLS
from shapecodec.evaluate.topology import topology
from shapecodec.evaluate.visible import OUTER
from shapecodec.evaluate.volume import overlap
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Similarity
from shapecodec.rng import rng


def time_parts(prediction, reference, repeats):
    """The whole comparison with normal maps, and what it is made of."""

    def everything():
        return compare_all(prediction, reference, resolution=512), normal_map_scores(prediction, reference)

    def measured(points):
        return Pair(prediction, reference, cube=Similarity()).measured(points)

    def outer():
        Pair(prediction, reference, cube=Similarity()).measure([(500_000, OUTER), (100_000, OUTER)])

    parts = {
        "all protocols and normal maps": everything,
        "all protocols": lambda: compare_all(prediction, reference, resolution=512),
        "exact and sampled distances, 1,000,000 points": lambda: measured(1_000_000),
        "exact and sampled distances, 100,000 points": lambda: measured(100_000),
        "Hausdorff bounds, both ways": lambda: (hausdorff(prediction, reference), hausdorff(reference, prediction)),
        "topology and self-intersections, both": lambda: [topology(mesh, True) for mesh in (prediction, reference)],
        "outer surface, 500,000 and 100,000 points": outer,
        "IoU, 50,000 points": lambda: overlap(prediction, reference, 50_000, rng(0)),
        "normal maps": lambda: normal_map_scores(prediction, reference),
    }
    return {name: best(run, repeats)[1] for name, run in parts.items()}


def floors(data, split):
    """Mean area and floors by level, in the frames of the papers' protocols."""
    levels = {}
    for row in csv.DictReader((data / "manifest.csv").open()):
        if split and row["split"] != split:
            continue
        mesh = read_mesh(data / row["file"])
        area = float(mesh.face_areas().double().sum())
        for name in ("log3d-v1", "focusing-v1", "lagem-v1"):
            scaled = area * PROTOCOLS[name].frame.similarity(mesh).scale ** 2
            levels.setdefault(row["level"], {}).setdefault(name, []).append(scaled)
    return {
        level: {name: floor(PROTOCOLS[name], areas) for name, areas in levels[level].items()}
        for level in sorted(levels)
    }


def floor(protocol, areas):
    """Expected floors of areas, averaged: see docs/evaluation.md."""
    n, mean = protocol.points, lambda values: round(sum(values) / len(values), 4)
    sums = {
        "chamfer_l1": mean([100 * math.sqrt(area / n) for area in areas]),
        "chamfer_l2": mean([1e5 * 2 * area / (math.pi * n) for area in areas]),
    }
    shares = {
        f"f_{radius:g}": mean([1 - math.exp(-math.pi * radius**2 * n / area) for area in areas])
        for radius in protocol.thresholds
    }
    return {"meshes": len(areas), "area": mean(areas), "sum x100, sum of squares x1e5": sums, **shares}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=Path, nargs=2, help="prediction and reference; default two tori")
    parser.add_argument("--floors", type=Path, help="a folder with manifest.csv")
    parser.add_argument("--split", help="of the manifest; default all")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.floors:
        print(json.dumps(floors(options.floors, options.split), indent=2))
        return
    prediction, reference = map(read_mesh, options.meshes) if options.meshes else tori()
    report = {
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": numba.get_num_threads()},
        "versions": {"numba": numba.__version__, "torch": torch.__version__, "torch_threads": torch.get_num_threads()},
        "load_average": os.getloadavg(),
        "faces": [len(prediction.faces), len(reference.faces)],
        "points": {name: protocol.points for name, protocol in PROTOCOLS.items()},
        "seconds": time_parts(prediction, reference, options.repeats),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
