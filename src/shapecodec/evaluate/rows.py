"""The table of an evaluation: one flat row a shape, as Parquet and CSV, every score with its floor and oracle beside it.

Columns, in this order: `COLUMNS`; `seconds.<stage>`; then for each `<protocol>.<path>` of `metrics.compare` the number itself,
`floor.<protocol>.<path>` (what a perfect reconstruction scores) and `oracle.<protocol>.<path>` (the exact field through the same
extraction). All three exist always; what is not known is null. docs/evaluation.md says what each means.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shapecodec.errors import BadFile
from shapecodec.evaluate.measure import MEASURES
from shapecodec.io.atomic import atomic_file

Row = dict[str, Any]

FORMAT = 1  # of rows.parquet: changes when a column changes its meaning
_KEY = b"shapecodec"  # of the settings in the file's metadata

COLUMNS: dict[str, type] = {
    "name": str,
    "category": str,
    "level": str,
    "file": str,
    "file_hash": str,
    "status": str,
    "reason": str,
    "codec": str,
    "codec_hash": str,
    "resolution": int,
    "surface": str,
    "bits": int,
    "tokens": int,
    "bytes": int,
    "peak_memory_bytes": int,
    "warm": bool,
}
_LEFT_OUT = {  # of a result: they stand in aggregate.json, or describe no score
    "protocol", "digest", "points", "seed", "resolution", "voxel", "frame", "standard_error", "views", "mask",
}  # fmt: skip
_BESIDE_A_FLOOR = ("value", "f", "precision", "recall")  # the numbers that a plain `floor` belongs to
# What identical meshes score where `compare` states no floor, by the beginning of the path; the first that fits counts.
_PERFECT = (
    ("exact.f_score.", 1.0),
    ("exact.", 0.0),
    ("hausdorff.", 0.0),
    ("normal_error_degrees.", 0.0),
    ("normal_error_signed_degrees.", 0.0),
    ("area_ratio", 1.0),
    ("volume_ratio", 1.0),
    ("overlap", 1.0),
    ("both.", 0.0),
)


def measured(result: dict[str, Any], oracle: dict[str, Any] | None) -> Row:
    """The columns of one comparison: number, floor and oracle of every protocol.

    Args:
        result: what `measure` returned for the reconstruction.
        oracle: the same for the oracle, or None.
    """
    columns: Row = {}
    for name, numbers in result.items():
        values, floors = flatten(numbers)
        truth = {} if oracle is None else flatten(oracle[name])[0]
        for path, value in values.items():
            columns[f"{name}.{path}"] = value
            columns[f"floor.{name}.{path}"] = floors.get(path)
            columns[f"oracle.{name}.{path}"] = truth.get(path)
    return columns


def flatten(numbers: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Dotted path -> number of one protocol's result, and dotted path -> floor.

    A `floor` inside belongs to the numbers beside it: {"half_sum": s, "sum": t, "accuracy": a, "floor": {"half_sum": f, "sum": g}}
    gives half_sum and accuracy (one direction) the floor f and sum g; {"f": s, "precision": p, "floor": f} gives it to both. The
    topology of the reference is the floor of the prediction's. What has none of these takes the value that identical meshes
    have, where there is one. Texts and lists are left out.
    """
    values: dict[str, float | None] = {}
    floors: dict[str, float | None] = {}
    _walk({key: value for key, value in numbers.items() if key not in _LEFT_OUT}, "", values, floors)
    for path in [path for path in values if path.startswith("reference.")]:
        floors["prediction." + path.removeprefix("reference.")] = values.pop(path)
    for path in values:
        known = next((value for start, value in _PERFECT if path.startswith(start)), None)
        floors.setdefault(path, known)
    return values, floors


def _walk(node: dict[str, Any], path: str, values: dict[str, float | None], floors: dict[str, float | None]) -> None:
    for key, value in node.items():
        here = f"{path}{key}"
        if key == "floor":
            least = value if isinstance(value, dict) else dict.fromkeys(_BESIDE_A_FLOOR, value)
            found = {name: least.get(name, least.get("half_sum")) for name in node}
            floors.update({f"{path}{name}": number for name, number in found.items() if number is not None})
        elif isinstance(value, dict):
            _walk(value, here + ".", values, floors)
        elif value is None or isinstance(value, bool | int | float):
            values[here] = float(value) if value is not None and math.isfinite(value) else None


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All columns in the order of the file."""
    found = dict.fromkeys(name for row in rows for name in row)
    seconds = [name for name in found if name.startswith("seconds.")]
    metrics = metric_columns(found)
    return [*COLUMNS, *seconds, *(f"{kind}{name}" for name in metrics for kind in ("", "floor.", "oracle."))]


def metric_columns(columns: Iterable[str]) -> list[str]:
    """The scores among the columns: those of a protocol, without their floors and oracles."""
    protocols = tuple(f"{name}." for name in MEASURES)
    return [name for name in columns if name.startswith(protocols)]


def write_rows(rows: Sequence[Row], folder: Path, settings: dict[str, Any]) -> None:
    """Write rows.parquet and rows.csv, each whole or not at all.

    Args:
        rows: at least the name and status of each shape.
        folder: of the run.
        settings: travel in the Parquet file; see `read_rows`.
    """
    import pyarrow  # 0.3 s that only evaluations need
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    names = columns_of(rows)
    fields = [pyarrow.field(name, kinds[COLUMNS[name]] if name in COLUMNS else pyarrow.float64()) for name in names]
    schema = pyarrow.schema(fields, {_KEY: json.dumps({"format": FORMAT, **settings}).encode()})
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], schema)
    with atomic_file(folder / "rows.parquet") as file:
        parquet.write_table(table, file)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(folder / "rows.csv") as file:
        file.write(text.getvalue().encode())


def read_rows(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a rows.parquet, and the settings that they were made with.

    Raises:
        BadFile: no such file, not Parquet, not of an evaluation, or of another format.
    """
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise BadFile("no such file.", where=str(path), hint="the rows.parquet of an evaluation's folder.")
    try:
        table = parquet.read_table(path)
        settings = json.loads((table.schema.metadata or {})[_KEY])
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadFile("not the rows of an evaluation.", where=str(path), hint="the rows.parquet of a run.") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise BadFile(
            f"the rows are not of format {FORMAT}.", where=str(path), hint="evaluate again with this version."
        )
    return table.to_pylist(), settings
