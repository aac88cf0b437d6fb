"""A small run folder with everything that a report reads: real scores of procedural meshes, pictures, views, failures."""

import json
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from shapecodec.data.procedural import procedural_mesh
from shapecodec.evaluate.aggregate import aggregate
from shapecodec.evaluate.metrics import compare
from shapecodec.evaluate.protocol import PROTOCOLS
from shapecodec.evaluate.report import write_view_mesh
from shapecodec.evaluate.rows import Row, measured, write_rows
from shapecodec.mesh import Mesh, Similarity
from shapecodec.rng import numpy_rng

NAMES = ("exact-v1", "log3d-v1")
RESOLUTION = 64
SETTINGS = {
    "codec": "test-codec",
    "codec_hash": "0123456789abcdef",
    "resolution": RESOLUTION,
    "data": "procedural",
    "date": "2026-01-02",
    "hardware": "an abacus",
    "points": 500,
    "seed": 7,
    "protocols": {name: PROTOCOLS[name].digest for name in NAMES},
}
KINDS = ("gear", "tube", "open_sheet")


@cache
def shapes() -> tuple[tuple[str, Mesh, Mesh, Row], ...]:
    """(name, original, reconstruction, row) of each measured shape; the reconstructions get worse from one to the next."""
    found = []
    for index, kind in enumerate(KINDS):
        mesh = procedural_mesh(numpy_rng(index, purpose=kind), kind).normalise()[0]
        noise = torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(index))
        moved, exact = (Mesh(mesh.vertices + noise * size, mesh.faces) for size in (0.01 * (index + 1), 0.001))
        options = {"resolution": RESOLUTION, "points": 500, "seed": 7, "frame": Similarity()}
        results = ({name: compare(m, mesh, protocol=name, **options) for name in NAMES} for m in (moved, exact))
        row = {
            "name": f"{kind}_{index}",
            "category": f"kind {index % 2}",
            "level": f"L{index % 2 + 1}",
            "file": f"{kind}.ply",
            "status": "ok",
            "codec": "test-codec",
            "resolution": RESOLUTION,
            "tokens": 100 + index,
            "bytes": 12_345 * (index + 1),
            "seconds.encode": 0.5,
            "seconds.decode": 1.5,
            "seconds.measure": 100.0,
            **measured(*results),
        }
        found.append((str(row["name"]), mesh, moved, row))
    return tuple(found)


FAILED: tuple[Row, ...] = (
    {"name": "torn", "status": "failed", "reason": "BadMesh: it has a hole. Try: another one.", "level": "L1", "category": ""},
    {"name": "huge", "status": "killed", "reason": "its process was ended by SIGKILL.", "level": "L2", "category": "kind 0"},
)  # fmt: skip


def write_run(
    folder: Path, rows: list[Row] | None = None, *, pictures: bool = True, settings: dict | None = None
) -> Path:
    """The folder, written by the same functions that an evaluation uses."""
    rows = [*(row for _, _, _, row in shapes()), *FAILED] if rows is None else rows
    settings = SETTINGS if settings is None else settings
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(rows, folder, settings)
    (folder / "aggregate.json").write_text(json.dumps(aggregate(rows, settings)))
    for name, original, reconstruction, _ in shapes() if pictures else ():
        place = folder / "shapes" / name
        place.mkdir(parents=True)
        for index, key in enumerate(("original", "reconstruction", "error")):
            picture = Image.new("RGB", (64, 56), (250, 250, 251))
            picture.paste((90, 60 * index, 30), (16, 16, 48, 40))
            picture.save(place / f"{key}.png")
        write_view_mesh(original, None, place / "original.bin")
        write_view_mesh(reconstruction, torch.rand(len(reconstruction.vertices)), place / "reconstruction.bin")
    return folder
