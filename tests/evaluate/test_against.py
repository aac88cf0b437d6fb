"""Runs that were measured differently, or pairs that are no pairs."""

import numpy as np
import pytest

from shapecodec.errors import BadArgument
from shapecodec.evaluate.against import compare_runs

SETTINGS = {"codec": "c", "protocols": {"exact-v1": "d1"}, "points": None, "seed": 0, "resolution": 64}
NAMES = [f"s{index}" for index in range(12)]
ERROR, F, VOXELS = (
    "exact-v1.exact.accuracy.mean",
    "exact-v1.sampled.f_score.0.005.f",
    "exact-v1.exact.accuracy_voxels.mean",
)


def run(shift: float = 0.0, names=NAMES, **changes):
    values = np.random.default_rng(0).random(len(NAMES))
    rows = []
    for name in names:
        value = float(values[NAMES.index(name)]) + shift
        rows.append({
            "name": name, "status": "ok", "file_hash": f"h{name}", ERROR: value, f"floor.{ERROR}": 0.0, VOXELS: 64 * value,
            f"floor.{VOXELS}": 0.0, F: 0.9 - value / 9, f"floor.{F}": 0.95, "exact-v1.prediction.faces": 100 * value,
            "floor.exact-v1.prediction.faces": 100.0, **changes,
        })  # fmt: skip
    return rows


def test_better_run_loses():
    found = compare_runs(run(), SETTINGS, run(shift=0.25), {**SETTINGS, "codec": "d"})
    assert found["shapes"] == {"both": 12, "only_this": 0, "only_other": 0, "failed_this": 0, "failed_other": 0}
    error, score = found["columns"][ERROR], found["columns"][F]
    assert error["difference"] == pytest.approx(-0.25) and error["low"] == pytest.approx(-0.25) == error["high"]
    assert error["p"] == pytest.approx(2 / 2**12) and (error["wins"], error["losses"], error["ties"]) == (12, 0, 0)
    assert score["difference"] > 0 and score["wins"] == 12  # nearer to a floor above it
    assert found["columns"]["exact-v1.prediction.faces"]["wins"] is None
    assert found["this"]["codec"] == "c" and found["other"]["codec"] == "d"
    back = compare_runs(run(shift=0.25), SETTINGS, run(), SETTINGS)
    assert back["columns"][ERROR]["losses"] == 12 and back["columns"][ERROR]["p"] == error["p"]
    same = compare_runs(run(), SETTINGS, run(), SETTINGS)["columns"][ERROR]
    assert same["p"] is None and same["ties"] == 12 and same["difference"] == 0.0


@pytest.mark.parametrize("change", [{"protocols": {"exact-v1": "d2"}}, {"protocols": {}}, {"points": 5}, {"seed": 1}])
def test_runs_under_other_protocols_are_compared(change):
    with pytest.raises(BadArgument, match="measured differently"):
        compare_runs(run(), SETTINGS, run(), {**SETTINGS, **change})


def test_voxels_of_two_grids_are_compared():
    found = compare_runs(run(), SETTINGS, run(), {**SETTINGS, "resolution": 128})
    assert VOXELS not in found["columns"] and ERROR in found["columns"] and "voxels differ" in found["left_out"]


def test_failures_or_other_shapes_count_as_pairs():
    rows = run(names=NAMES[2:])
    rows[0].update(status="failed", **{ERROR: None})
    found = compare_runs(rows, SETTINGS, run(names=NAMES[:8]), SETTINGS)
    assert found["shapes"] == {"both": 5, "only_this": 4, "only_other": 2, "failed_this": 1, "failed_other": 0}
    assert found["columns"][ERROR]["n"] == 5
    with pytest.raises(BadArgument, match="no shape was done by both"):
        compare_runs(run(names=NAMES[:3]), SETTINGS, run(names=NAMES[3:]), SETTINGS)
    with pytest.raises(BadArgument, match=r"12 shapes have the same name and other files, the first is 's0'"):
        compare_runs(run(), SETTINGS, run(file_hash="x"), SETTINGS)


def test_missing_values_are_compared():
    rows = run()
    for row in rows[:4]:
        row[F] = None
    columns = compare_runs(rows, SETTINGS, run(shift=0.1), SETTINGS)["columns"]
    assert columns[F]["n"] == 8 and columns[ERROR]["n"] == 12
    assert columns[F]["this"] == pytest.approx(np.mean([row[F] for row in rows[4:]]))
    for row in rows:
        row[F] = None
    assert F not in compare_runs(rows, SETTINGS, run(), SETTINGS)["columns"]
