"""Scores without a floor, columns that change on their way through a file, and tables that hide failures."""

import csv
import json

import pytest
from boxes import box

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.aggregate import aggregate
from shapecodec.evaluate.measure import MEASURES, describe_measure, measure
from shapecodec.evaluate.protocol import EXACT, LAGEM
from shapecodec.evaluate.rows import COLUMNS, columns_of, flatten, measured, metric_columns, read_rows, write_rows
from shapecodec.evaluate.tables import headline, summary_page
from shapecodec.mesh import Mesh

SETTINGS = {
    "codec": "c",
    "data": "d",
    "protocols": {EXACT.name: EXACT.digest},
    "points": None,
    "seed": 0,
    "resolution": 64,
}


@pytest.fixture(scope="module")
def results():
    unit = box(1, 2, 3).normalise()[0]
    moved = Mesh(unit.vertices + 0.01, unit.faces)
    names = (EXACT.name, LAGEM.name, "normals-v1")
    return tuple(measure(mesh, unit, names, points=3000, resolution=64, seed=0) for mesh in (moved, unit))


def test_score_has_no_floor_or_a_wrong_one(results):
    """What identical meshes score is what the floor columns promise: exactly, or as another sample would."""
    columns = measured(results[1], None)
    names = metric_columns(columns)
    assert len(names) > 60
    counts = [
        name for name in names if (".iou." in name and not name.endswith(".value")) or name.endswith(".mask_share")
    ]
    for name in set(names) - set(counts):
        value, floor = columns[name], columns[f"floor.{name}"]
        if value is None:
            continue
        assert floor is not None, name
        tolerance = 0.25 * abs(floor) + 0.03 if ".sampled." in name or ".paper." in name else 3e-4
        if "normal_error" in name:  # at an edge the nearest face may be the other one
            tolerance = 3.0
        assert value == pytest.approx(floor, abs=tolerance), name
    assert all(columns[f"floor.{name}"] is None for name in counts)


def test_protocol_changes_without_its_digest():
    digests = {name: describe_measure(name)["digest"] for name in MEASURES}
    assert digests["normals-v1"] == "7ece42b5" and len(set(digests.values())) == len(MEASURES)
    with pytest.raises(BadArgument, match="unknown protocol 'exact-v0'"):
        describe_measure("exact-v0")


def test_floor_of_another_number():
    numbers = {
        "protocol": "exact-v1", "points": 5, "standard_error": {"exact": {"mean": 1.0}},
        "sampled": {"chamfer_l1": {"accuracy": 3.0, "half_sum": 4.0, "sum": 8.0, "floor": {"half_sum": 1.0, "sum": 2.0}},
                    "f_score": {"0.005": {"f": 0.5, "recall": 0.4, "floor": 0.9}}},
        "iou": {"value": 0.5, "points": 9, "reason": None, "floor": 1.0},
        "exact": {"accuracy": {"mean": 0.1}, "f_score": {"0.01": {"f": float("nan")}}},
        "prediction": {"faces": 7, "watertight": True}, "reference": {"faces": 12, "watertight": False},
    }  # fmt: skip
    values, floors = flatten(numbers)
    assert values == {
        "sampled.chamfer_l1.accuracy": 3.0, "sampled.chamfer_l1.half_sum": 4.0, "sampled.chamfer_l1.sum": 8.0,
        "sampled.f_score.0.005.f": 0.5, "sampled.f_score.0.005.recall": 0.4, "iou.value": 0.5, "iou.points": 9.0,
        "iou.reason": None, "exact.accuracy.mean": 0.1, "exact.f_score.0.01.f": None, "prediction.faces": 7.0,
        "prediction.watertight": 1.0,
    }  # fmt: skip
    assert {name: floors.get(name) for name in values} == {
        "sampled.chamfer_l1.accuracy": 1.0, "sampled.chamfer_l1.half_sum": 1.0, "sampled.chamfer_l1.sum": 2.0,
        "sampled.f_score.0.005.f": 0.9, "sampled.f_score.0.005.recall": 0.9, "iou.value": 1.0, "iou.points": None,
        "iou.reason": None, "exact.accuracy.mean": 0.0, "exact.f_score.0.01.f": 1.0, "prediction.faces": 12.0,
        "prediction.watertight": 0.0,
    }  # fmt: skip


def rows_of(results):
    good = measured(*results)
    seconds = {"seconds.load": 1.0, "warm": True, "tokens": 5, "bytes": 70}
    return [
        {"name": "a", "status": "ok", "level": "L1", "category": "box", "file": "x/a.ply", **seconds, **good},
        {"name": "b", "status": "failed", "reason": 'said "no",\nthen died', "level": "L2", "category": "", "file": "b.ply"},
        {"name": "c", "status": "ok", "level": "L1", "category": "", "file": "c.ply", **good, "warm": False,
         "seconds.load": 9.0, "exact-v1.exact.accuracy.mean": 1.0},
    ]  # fmt: skip


def test_columns_change_on_their_way_through_a_file(results, tmp_path):
    rows = rows_of(results)
    write_rows(rows, tmp_path, SETTINGS)
    read, settings = read_rows(tmp_path / "rows.parquet")
    names = columns_of(rows)
    assert list(read[0]) == names and settings == {"format": 1, **SETTINGS}
    for one, row in zip(read, rows, strict=True):
        assert one == {name: row.get(name) for name in names}
    for name in metric_columns(names):
        at = names.index(name)
        assert names[at : at + 3] == [name, f"floor.{name}", f"oracle.{name}"]
    with (tmp_path / "rows.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert list(texts[0]) == names and texts[1]["reason"] == rows[1]["reason"]
    assert float(texts[0]["oracle.exact-v1.exact.accuracy.mean"]) == read[0]["oracle.exact-v1.exact.accuracy.mean"]
    assert texts[1]["exact-v1.exact.accuracy.mean"] == "" and list(texts[0])[: len(COLUMNS)] == list(COLUMNS)


def test_rows_of_something_else(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadFile, match="not the rows of an evaluation"):
        read_rows(tmp_path / "rows.parquet")
    with pytest.raises(BadFile, match="no such file"):
        read_rows(tmp_path / "other.parquet")
    write_rows([{"name": "a", "status": "ok"}], tmp_path, {"format": 0})
    with pytest.raises(BadFile, match="format 1"):
        read_rows(tmp_path / "rows.parquet")


def test_means_hide_failures_or_mix_groups(results):
    rows = rows_of(results)
    means = aggregate(rows, SETTINGS)
    groups = {(group["by"], group["key"]): group for group in means["groups"]}
    assert list(groups) == [("all", ""), ("level", "L1"), ("level", "L2"), ("category", "box")]
    counts = {key: (group["shapes"], group["failed"]) for key, group in groups.items()}
    assert counts == {
        ("all", ""): (3, 1),
        ("level", "L1"): (2, 0),
        ("level", "L2"): (1, 1),
        ("category", "box"): (1, 0),
    }
    score = groups["all", ""]["metrics"]["exact-v1.exact.accuracy.mean"]
    first = rows[0]["exact-v1.exact.accuracy.mean"]
    assert score["n"] == 2 and score["mean"] == pytest.approx((first + 1) / 2) and score["worst"] == "c"
    assert 0.99 * first < score["low"] < score["mean"] < score["high"] <= 1.0
    assert score["floor"] == 0.0 and score["oracle"] == pytest.approx(0, abs=1e-6)
    nothing = groups["level", "L2"]["metrics"]["exact-v1.exact.accuracy.mean"]
    assert nothing["n"] == 0 and nothing["mean"] is nothing["low"] is nothing["worst"] is None
    assert groups["all", ""]["seconds"]["load"]["mean"] == 1.0  # the cold process is left out
    assert groups["all", ""]["sizes"]["tokens"]["n"] == 1
    assert json.loads(json.dumps(means, allow_nan=False)) == means
    page = summary_page(means, "python: 3")
    assert "| all | 2 (1 failed) |" in page and "| level L2 | 0 (1 failed) | - (-)" in page
    assert all(f"| {label} |" in page for label, _ in headline(list(score_names(means))))


def score_names(means):
    return means["groups"][0]["metrics"]
