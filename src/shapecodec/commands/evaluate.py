"""`evaluate`: a codec, or meshes from elsewhere, on a folder of meshes, with a report; and two runs shape by shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from shapecodec.commands.console import Reporter, grid
from shapecodec.commands.steps import choose_device
from shapecodec.errors import BadArgument
from shapecodec.evaluate.against import compare_runs
from shapecodec.evaluate.measure import MEASURES, describe_measure
from shapecodec.evaluate.methods import Align, CodecMethod, FolderMethod, Method
from shapecodec.evaluate.rows import Row, read_rows
from shapecodec.evaluate.run import Evaluation, Plan
from shapecodec.evaluate.run import evaluate as evaluate_plan
from shapecodec.evaluate.tables import cell, counted, headline
from shapecodec.io.atomic import atomic_file


def run(
    *,
    data: Path,
    codec: str | None,
    meshes: Path | None,
    label: str,
    align: Align,
    split: str | None,
    resolution: int | None,
    surface: str | None,
    bits: int,
    protocols: tuple[str, ...],
    points: int | None,
    limit: int | None,
    workers: int | None,
    out: Path | None,
    resume: bool,
    against: Path | None,
    time_budget: float | None,
    timeout: float,
    pictures: bool,
    device: str,
    seed: int,
    max_faces: int,
    as_json: bool,
) -> None:
    """See `cli.evaluate`."""
    method = _method(codec, meshes, label, align, resolution, surface, bits)
    report = Reporter(as_json)
    other = None if against is None else read_rows(against)  # before hours of work
    chosen = tuple(describe_measure(name)["name"] for name in dict.fromkeys(protocols)) or MEASURES
    plan = Plan(method, data, split, chosen, points, seed, choose_device(device), pictures, max_faces)
    folder = out or _folder(method, data)
    report.note(f"  rows, tables and the report go to {folder}")
    done = evaluate_plan(
        plan,
        folder,
        resume=resume,
        limit=limit,
        workers=workers,
        time_budget_s=time_budget,
        timeout_s=timeout,
        progress=lambda row, number, total: report.note(_line(row, number, total)),
    )
    paired = None
    if other is not None:
        paired = compare_runs(done.rows, done.settings, *other, seed=seed)
        with atomic_file(folder / "against.json") as file:
            file.write(json.dumps(paired, indent=1, allow_nan=False).encode() + b"\n")
    report.result(_values(done, paired), *_tables(done, paired))


def _method(
    codec: str | None,
    meshes: Path | None,
    label: str,
    align: Align,
    resolution: int | None,
    surface: str | None,
    bits: int,
) -> Method:
    if (codec is None) == (meshes is None):
        raise BadArgument("one of --codec and --meshes is needed.", where="evaluate")
    if meshes is not None:
        if surface is not None:
            raise BadArgument("--surface is of codecs, and --meshes are surfaces already.", where="evaluate")
        return FolderMethod(meshes, label, resolution, align)
    if label or align != "none":
        raise BadArgument("--label and --align are of --meshes.", where="evaluate")
    return CodecMethod(str(codec), resolution, surface, bits)


def _folder(method: Method, data: Path) -> Path:
    about = method.describe()
    parts = [about["codec"], data.resolve().stem, about["resolution"], about["surface"]]
    return Path("runs") / "-".join(str(part).replace("/", "-") for part in parts if part)


def _line(row: Row, number: int, total: int) -> str:
    scores = headline(list(row))
    text = f"{scores[0][0]} {cell(row[scores[0][1]])}" if row["status"] == "ok" and scores else row.get("reason", "")
    return f"  {number:>{len(str(total))}}/{total}  {row['status']:8}{row['name'][:40]:42}{text}"


def _values(done: Evaluation, paired: dict[str, Any] | None) -> dict[str, Any]:
    """The JSON contract of docs/cli.md."""
    everything = done.aggregate["groups"][0]
    columns = [column for _, column in headline(list(everything["metrics"]))]
    names = {"rows": "rows.parquet", "csv": "rows.csv", "aggregate": "aggregate.json", "summary": "summary.md"}
    return {
        "run": str(done.run),
        "settings": done.settings,
        "shapes": {"done": everything["shapes"], "missing": done.missing, "fresh": done.fresh, **everything["status"]},
        "metrics": {column: everything["metrics"][column] for column in columns},
        "files": {**{key: str(done.run / name) for key, name in names.items()}, "report": str(done.report)},
        "against": paired,
        "seconds": {"total": done.seconds},
    }


def _tables(done: Evaluation, paired: dict[str, Any] | None) -> list[Table | str]:
    groups = done.aggregate["groups"]
    heads = headline(list(groups[0]["metrics"]))
    rows: list[tuple[str, ...]] = []
    for label, column in heads:
        score = groups[0]["metrics"][column]
        interval = f"{cell(score['low'])}, {cell(score['high'])}"
        rows.append((label, cell(score["mean"]), interval, cell(score["floor"]), cell(score["oracle"])))
    tables: list[Table | str] = [
        grid(f"{done.settings['codec']}, {counted(groups[0])} shapes", ("", "mean", "95%", "floor", "oracle"), rows)
    ]
    levels = [group for group in groups if group["by"] == "level"]
    if len(levels) > 1:
        cells: list[tuple[str, ...]] = [("shapes", *(counted(group) for group in levels))]
        cells += [(label, *(cell(group["metrics"][column]["mean"]) for group in levels)) for label, column in heads]
        tables += ["", grid("By level", ("", *(group["key"] for group in levels)), cells)]
    if paired is not None:
        tables += ["", _paired_table(paired, heads)]
    missing = f"; {done.missing} shapes are left: --resume" if done.missing else ""
    return [*tables, "", f"report: {done.report}{missing}"]


def _paired_table(paired: dict[str, Any], heads: list[tuple[str, str]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for label, column in heads:
        score = paired["columns"].get(column)
        if score is None:
            continue
        interval = f"{cell(score['low'])}, {cell(score['high'])}"
        wins = "-" if score["wins"] is None else f"{score['wins']}:{score['losses']}:{score['ties']}"
        rows.append((label, cell(score["difference"]), interval, cell(score["p"]), wins))
    title = f"Minus {paired['other']['codec']}, over the {paired['shapes']['both']} shapes that both have done"
    return grid(title, ("", "mean", "95%", "p", "won:lost:tied"), rows)
