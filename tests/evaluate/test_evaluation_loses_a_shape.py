"""Shapes that fail, workers that are killed, runs that are killed: every shape has one row, and none is done twice."""

import json
import multiprocessing
import time

import pytest
from boxes import box_folder
from fake_method import Shifted

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.run import evaluate
from shapecodec.evaluate.shape import Plan
from shapecodec.evaluate.subjects import find_subjects, in_random_order

FAST = {"protocols": (), "points": 200, "pictures": False}  # measuring takes a second a shape, and is tested elsewhere


def plan(data, **method) -> Plan:
    return Plan(Shifted(**method), data, **FAST)


def done(result):
    return {row["name"]: row["status"] for row in result.rows}


def test_failed_shape_takes_others_along_or_is_not_counted(tmp_path):
    data = box_folder(tmp_path / "data", "a", "open", "broken", "b")
    (data / "empty.ply").write_bytes(b"")
    seen = []
    measured = Plan(Shifted(), data, **{**FAST, "protocols": ("exact-v1",)})
    result = evaluate(
        measured, tmp_path / "run", workers=0, progress=lambda row, n, total: seen.append((row["name"], n, total))
    )
    assert done(result) == {"a": "ok", "b": "ok", "open": "failed", "broken": "failed", "empty": "failed"}
    reasons = {row["name"]: row.get("reason") for row in result.rows}
    assert reasons["open"] == "BadMesh: open.ply: it has no inside."
    assert reasons["broken"] == "RuntimeError: a kernel failed"
    assert "empty" in reasons["empty"] and str(tmp_path) not in json.dumps(reasons)
    assert [n for _, n, _ in seen] == [1, 2, 3, 4, 5] and {total for _, _, total in seen} == {5}
    assert {"date", "hardware", "version"} <= set(result.aggregate["settings"])  # the report's header
    everything = result.aggregate["groups"][0]
    assert (everything["shapes"], everything["failed"]) == (5, 3)
    # half a voxel along x: two of six sides are off by .5, the others by nothing but their rims
    score = everything["metrics"]["exact-v1.exact.accuracy_voxels.mean"]
    assert 0.1 < score["mean"] < 0.4 and score["oracle"] < 1e-4 and score["floor"] == 0.0
    good = next(row for row in result.rows if row["name"] == "a")
    assert good["level"] == "L1" and good["tokens"] == 12 and len(good["file_hash"]) == 16
    assert {"seconds.load", "seconds.reconstruct", "seconds.measure", "seconds.measure_oracle"} <= set(good)
    for name in ("rows.parquet", "rows.csv", "aggregate.json", "summary.md", "report.html", "environment.txt"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert str(tmp_path) not in (tmp_path / "run" / "aggregate.json").read_text()


@pytest.mark.timeout(180)
def test_killed_worker_takes_others_along(tmp_path):
    data = box_folder(tmp_path / "data", "a", "killed", "b")
    result = evaluate(plan(data), tmp_path / "run", workers=1)
    assert done(result) == {"a": "ok", "b": "ok", "killed": "killed"}
    again = evaluate(plan(data), tmp_path / "run", workers=1, resume=True)  # bad luck is tried again, and nothing else
    assert again.fresh == 1 and done(again) == done(result)


def run_slowly(data, run, log):
    evaluate(plan(data, log=log, pause_s=0.05), run, workers=0, resume=(run / "config.json").exists())


def test_kill_9_at_any_moment_does_a_shape_twice(tmp_path):
    names = [f"shape{index}" for index in range(12)]
    data, run, log = box_folder(tmp_path / "data", *names), tmp_path / "run", tmp_path / "log.txt"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shapecodec.evaluate.run", "fake_method"])
    kills = 0
    for _ in range(4):
        before = log.read_text().count("\n") if log.exists() else 0
        process = context.Process(target=run_slowly, args=(data, run, log))
        process.start()
        end = time.monotonic() + 100
        while process.is_alive() and (log.read_text().count("\n") if log.exists() else 0) < before + 2:
            assert time.monotonic() < end
            time.sleep(0.002)
        kills += process.is_alive()
        process.kill()
        process.join()
    finished = {path.stem for path in (run / "rows").glob("*.json")}
    begun = log.read_text().split()
    assert kills >= 3 and 0 < len(finished) < len(names)
    (run / "rows" / ".shape0.json.abc.part").write_text("{")  # what a kill leaves of a file
    result = evaluate(plan(data, log=log), run, workers=0, resume=True)
    later = log.read_text().split()[len(begun) :]
    assert set(later).isdisjoint(finished) and result.fresh == len(later) == len(names) - len(finished)
    assert done(result) == dict.fromkeys(sorted(names), "ok")
    assert not list((run / "rows").glob("*.part"))
    same = ("name", "file", "file_hash", "level", "tokens", "bytes")
    whole = evaluate(plan(data), tmp_path / "whole", workers=0)
    assert [[row[key] for key in same] for row in whole.rows] == [[row[key] for key in same] for row in result.rows]


def test_resume_mixes_two_settings(tmp_path):
    data, run = box_folder(tmp_path / "data", "a"), tmp_path / "run"
    first = evaluate(plan(data), run, workers=0)
    assert evaluate(plan(data), run, workers=0, resume=True).fresh == 0
    with pytest.raises(BadArgument, match="already holds a run"):
        evaluate(plan(data), run, workers=0)
    with pytest.raises(BadArgument, match=r"shift: 0.5 -> 0.25"):
        evaluate(plan(data, shift=0.25), run, workers=0, resume=True)
    with pytest.raises(BadArgument, match=r"points: 200 -> 300"):
        evaluate(Plan(Shifted(), data, **{**FAST, "points": 300}), run, workers=0, resume=True)
    box_folder(data, "b")
    with pytest.raises(BadArgument, match="data_digest"):
        evaluate(plan(data), run, workers=0, resume=True)
    with pytest.raises(BadArgument, match="holds no run"):
        evaluate(plan(data), tmp_path / "other", workers=0, resume=True)
    (run / "config.json").write_text("{")
    with pytest.raises(BadFile, match="not valid JSON"):
        evaluate(plan(data), run, workers=0, resume=True)
    assert first.fresh == 1


def test_limit_takes_other_shapes_each_time(tmp_path):
    data = box_folder(tmp_path / "data", *"abcdef")
    order = [subject.name for subject in in_random_order(find_subjects(data), 0)]
    two = evaluate(plan(data), tmp_path / "run", workers=0, limit=2)
    assert set(done(two)) == set(order[:2])
    four = evaluate(plan(data), tmp_path / "run", workers=0, limit=4, resume=True)
    assert set(done(four)) == set(order[:4]) and four.fresh == 2


def test_budget_stops_in_the_middle_of_a_shape_or_says_nothing(tmp_path):
    data = box_folder(tmp_path / "data", *"abc")
    with pytest.raises(BadArgument, match="before the first shape"):
        evaluate(plan(data), tmp_path / "none", workers=0, time_budget_s=0.0)
    run = tmp_path / "run"
    evaluate(plan(data), run, workers=0, limit=1)
    rest = evaluate(plan(data), run, workers=0, resume=True, time_budget_s=0.0)
    assert (rest.fresh, rest.missing, len(rest.rows)) == (0, 2, 1)


def test_flag_that_no_shape_can_serve_fails_every_shape(tmp_path):
    data = box_folder(tmp_path / "data", "refused1", "refused2")
    with pytest.raises(BadArgument, match="not a multiple of 8"):
        evaluate(plan(data), tmp_path / "run", workers=0)
    assert not list((tmp_path / "run" / "rows").iterdir())
    data = box_folder(tmp_path / "mixed", *"abcd", "refused")
    seed = next(s for s in range(99) if in_random_order(find_subjects(data), s)[0].name != "refused")
    mixed = evaluate(Plan(Shifted(), data, **FAST, seed=seed), tmp_path / "mixed_run", workers=0)
    assert done(mixed) == {**dict.fromkeys("abcd", "ok"), "refused": "failed"}


def test_two_processes_write_one_run(tmp_path):
    data, run, log = box_folder(tmp_path / "data", *"abc"), tmp_path / "run", tmp_path / "log"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shapecodec.evaluate.run", "fake_method"])
    process = context.Process(target=run_slowly, args=(data, run, log))
    process.start()
    end = time.monotonic() + 100
    while not log.exists():
        assert time.monotonic() < end and process.is_alive()
        time.sleep(0.002)
    try:
        with pytest.raises(BadArgument, match="another process"):
            evaluate(plan(data, log=log, pause_s=0.05), run, workers=0, resume=True)
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"workers": -1}])
def test_nothing_to_do_is_done(tmp_path, wrong):
    with pytest.raises(BadArgument, match="evaluate"):
        evaluate(plan(box_folder(tmp_path / "data", "a")), tmp_path / "run", **{"workers": 0, **wrong})
