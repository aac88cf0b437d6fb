"""What makes numbers comparable: protocols that stay as they are, floors everywhere, and one answer whoever asks."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from solids import cube, moved, sphere, together
from walking import lookup, numbers

from shapecodec.errors import BadArgument
from shapecodec.evaluate.compare import format_comparison, format_comparisons
from shapecodec.evaluate.metrics import compare, compare_all, floor_of
from shapecodec.evaluate.protocol import (
    EXACT,
    LAGEM,
    LOG3D,
    LOG3D_OUTER,
    PROTOCOLS,
    Frame,
    check_same_protocol,
    find_protocol,
)
from shapecodec.evaluate.views import Views
from shapecodec.mesh import Mesh, Similarity

DIGESTS = {
    "exact-v1": "35560547",
    "log3d-v1": "95dc1bff",
    "log3d-outer-v1": "3cfa6f4c",
    "focusing-v1": "0f12e293",
    "focusing-outer-v1": "047ab1e7",
    "lagem-v1": "cabe7f18",
}


@pytest.fixture(scope="module")
def results() -> dict:
    return compare_all(moved(sphere(0.41, 8), 0.003, 0.01, 0), sphere(0.4, 8), points=3000, resolution=128)


def test_definition_changes_under_its_old_name():
    """A new digest needs a new version in the name: numbers of the old one are in people's tables."""
    assert {name: protocol.digest for name, protocol in PROTOCOLS.items()} == DIGESTS
    assert replace(EXACT, points=7).digest != EXACT.digest


def test_numbers_of_exact_v1_change():
    """Measured before there were other protocols."""
    from test_metrics import sphere as old_sphere

    result = compare(
        old_sphere(0.41, (0.003, 0.01, 0)), old_sphere(0.4), points=20_000, resolution=128, seed=3, frame=Similarity()
    )
    for path, value in {
        "exact/accuracy/mean": 0.010097730531000652,
        "exact/accuracy/p95": 0.01943426504731178,
        "exact/accuracy/max": 0.020434826612472534,
        "exact/completeness/mean": 0.009927380872069512,
        "exact/completeness/p99": 0.020249858535826205,
        "exact/f_score/0.001/f": 0.0698496,
    }.items():
        assert lookup(result, path) == pytest.approx(value, rel=1e-6)


def test_results_of_other_definitions_are_mixed(results: dict):
    check_same_protocol()
    check_same_protocol(results["exact-v1"], deepcopy(results["exact-v1"]))
    with pytest.raises(BadArgument, match="'exact-v1' and 'log3d-v1'"):
        check_same_protocol(results["exact-v1"], results["exact-v1"], results["log3d-v1"])
    with pytest.raises(BadArgument, match="digest"):
        check_same_protocol(results["exact-v1"], {**results["exact-v1"], "digest": "0"})
    old = {key: value for key, value in results["exact-v1"].items() if key != "digest"}
    with pytest.raises(BadArgument, match="not stated"):
        check_same_protocol(results["exact-v1"], old)
    with pytest.raises(BadArgument, match="number of points 3,000 and 2,000"):
        check_same_protocol(results["exact-v1"], {**results["exact-v1"], "points": 2000})


def test_a_protocol_alone_gives_other_numbers_than_among_all(results: dict):
    for name, result in results.items():
        alone = compare(
            moved(sphere(0.41, 8), 0.003, 0.01, 0),
            sphere(0.4, 8),
            points=3000,
            resolution=128,
            protocol=name,
            full=True,
        )
        assert alone == result
    few = compare_all(sphere(0.41), sphere(), points=200, protocols=["lagem-v1", EXACT], full=False)
    assert list(few) == ["lagem-v1", "exact-v1"]
    assert few["lagem-v1"]["hausdorff"] is None and few["lagem-v1"]["iou"] is None


def test_protocols_own_number_of_points():
    counts = (400, 400, 300, 90, 70, 90)
    tiny = [replace(protocol, points=count) for protocol, count in zip(PROTOCOLS.values(), counts, strict=True)]
    result = compare_all(sphere(0.41, 4), sphere(0.4, 4), protocols=tiny, full=False)
    assert tuple(one["points"] for one in result.values()) == counts
    assert [EXACT.points, find_protocol("focusing-v1").points, LAGEM.points] == [1_000_000, 100_000, 100_000]
    alone = compare(sphere(0.41, 4), sphere(0.4, 4), protocol=tiny[-1])
    assert alone == result["lagem-v1"]


def test_a_score_without_its_floor(results: dict):
    """An evaluator without the floor column does not exist."""
    for result in results.values():
        sampled = result["sampled"]
        for name in ("chamfer_l1", "chamfer_l2"):
            floor = sampled[name]["floor"]
            assert 0 < floor["half_sum"] < sampled[name]["half_sum"] and floor["sum"] == 2 * floor["half_sum"]
        for threshold in find_protocol(result["protocol"]).thresholds:
            assert 0 < sampled["f_score"][f"{threshold:g}"]["floor"] <= 1
        assert result["exact"]["accuracy"]["max"] <= result["hausdorff"]["accuracy"]["lower"]
        assert all(set(score) == {"value", "floor", "unit"} for score in result["paper"].values())
        assert result["iou"]["floor"] == 1.0
        assert set(floor_of(result)) == {"chamfer_l1", "chamfer_l2", "f_score", "iou"}
        text = format_comparison(result)
        assert text.count("floor") >= 3 and result["protocol"] in text and "3,000 points a mesh" in text
    assert [name for name, result in results.items() if not result["paper"]] == ["exact-v1"]


def test_floors_are_what_the_mesh_scores_against_itself():
    """Against itself with fresh samples every score is its floor, within both errors."""
    for result in compare_all(sphere(), sphere(), points=5000).values():
        for path, floor in numbers(floor_of(result)):
            *parts, last = path.split("/")
            place = ["sampled", *parts, last] if parts else [last, "value"]
            if len(parts) == 1 and parts[0] == "f_score":
                place.append("f")
            value, error = lookup(result, "/".join(place)), lookup(result["standard_error"], "/".join(place))
            assert value == pytest.approx(floor, abs=6 * error), path
        assert result["iou"]["value"] == result["iou"]["floor"] == 1.0


def test_an_outer_protocol_counts_the_inner_shell():
    """A double shell whose inner layer is far off: outer samples do not see it, samples of the whole surface do."""
    reference = sphere(0.4, 8)
    prediction = together(reference, moved(sphere(0.3, 8)))
    results = compare_all(prediction, reference, points=2000, full=False)
    for name in ("log3d-v1", "focusing-v1"):
        outer = name.replace("-v1", "-outer-v1")
        assert results[outer]["surface"] == "outer" and results[name]["surface"] == "all"
        assert results[outer]["frame"] == results[name]["frame"]
        assert results[name]["exact"]["accuracy"]["p95"] > 0.09
        assert results[outer]["exact"]["accuracy"]["max"] < 1e-6
        near, floor = (results[outer]["sampled"]["chamfer_l1"][key] for key in ("half_sum", "floor"))
        assert near == pytest.approx(floor["half_sum"], rel=0.1)
        assert (
            results[outer]["area_ratio"]
            == pytest.approx(results[name]["area_ratio"])
            == pytest.approx(1.5625, rel=1e-3)
        )
    assert LOG3D_OUTER.as_dict()["outer"]["count"] == 100 and "outer" not in LOG3D.as_dict()
    assert replace(LOG3D_OUTER, outer=Views(99, 512)).digest != LOG3D_OUTER.digest


def test_json_and_text_lose_a_number(results: dict):
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    text = format_comparisons(results)
    for name in results:
        surface = ", outer surface" if "-outer-" in name else ""
        assert f"protocol {name}: 3,000 points a mesh{surface}, seed 0" in text
    assert text.count("accuracy: Exact distance") == 1 and text.count("hausdorff: Largest distance") == 1
    for words in ("self intersections", "IoU", "signed, accuracy", "unit (lagem-v1)", "+-"):
        assert words in text
    assert "definitions" not in format_comparisons(results, definitions=False)
    assert max(len(line) for line in text.splitlines()) < 115


def test_voxels_of_another_frame(results: dict):
    """Distances in voxels are the same whatever the protocol's unit of length."""
    for result in results.values():
        same = "log3d-outer-v1" if result["surface"] == "outer" else "exact-v1"
        expected = results[same]["exact"]["accuracy_voxels"]
        assert result["exact"]["accuracy_voxels"] == pytest.approx(expected, rel=1e-6)
        assert result["exact"]["accuracy"]["mean"] / result["voxel"] == pytest.approx(expected["mean"], rel=1e-9)


def test_known_cube_moves_other_frames():
    """A mesh in its codec's cube: exact-v1 takes the cube as it is, the others keep their own frames."""
    one, two = moved(sphere(0.31), 0.1, 0, 0), moved(sphere(0.3), 0.1, 0, 0)
    known = compare_all(one, two, points=2000, frame=Similarity(), full=False)
    free = compare_all(one, two, points=2000, full=False)
    assert known["exact-v1"]["frame"] == {"centre": [0.0, 0.0, 0.0], "scale": 1.0}
    assert free["exact-v1"]["frame"]["scale"] == pytest.approx(0.95 / 0.6, rel=1e-3)
    for name in ("log3d-v1", "focusing-v1", "lagem-v1"):
        assert known[name]["frame"]["scale"] == pytest.approx(free[name]["frame"]["scale"], rel=1e-5)
        assert known[name]["frame"]["centre"] == pytest.approx(free[name]["frame"]["centre"], abs=1e-6)
        assert known[name]["exact"]["accuracy"]["mean"] == pytest.approx(
            free[name]["exact"]["accuracy"]["mean"], rel=1e-4
        )


def test_sphere_frame_counts_unused_vertices():
    far = Mesh(torch.cat([cube(2).vertices, torch.tensor([[50.0, 0, 0]])]), cube(2).faces)
    assert Frame("sphere", 1.0).similarity(far).scale == pytest.approx(1 / (0.4 * 3**0.5), rel=1e-6)
    assert Frame("box", 0.98).similarity(far).scale == pytest.approx(0.98 / 0.8, rel=1e-6)
