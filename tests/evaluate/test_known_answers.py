"""Scores of shapes whose distances, shares and volumes can be written down."""

import math

import numpy as np
import pytest
import torch
from solids import cube, moved, sphere, together

from shapecodec.evaluate.metrics import compare, compare_all
from shapecodec.mesh import Mesh, Similarity

POINTS = 10_000


def square(height: float = 0.0, steps: int = 8) -> Mesh:
    """The open square [-.5, .5]^2 at a height."""
    line = torch.linspace(-0.5, 0.5, steps + 1)
    x, y = torch.meshgrid(line, line, indexing="ij")
    i, j = torch.meshgrid(torch.arange(steps), torch.arange(steps), indexing="ij")
    a = (i * (steps + 1) + j).flatten()
    b, c, d = a + steps + 1, a + steps + 2, a + 1
    vertices = torch.stack([x, y, torch.full_like(x, height)], -1).reshape(-1, 3)
    return Mesh(vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))


def unit(prediction: Mesh, reference: Mesh, **options):
    return compare(prediction, reference, points=POINTS, frame=Similarity(), full=True, **options)


def test_shifted_plane():
    gap = 0.0075
    result = unit(square(gap), square(), resolution=100)
    for side in ("accuracy", "completeness"):
        exact = result["exact"][side]
        assert all(exact[key] == pytest.approx(gap, rel=1e-5) for key in ("mean", "p50", "p95", "p99", "max"))
        assert result["exact"][f"{side}_voxels"]["mean"] == pytest.approx(0.75, rel=1e-5)
        assert result["hausdorff"][side]["lower"] == pytest.approx(gap, rel=1e-5)
        assert result["hausdorff"][side]["upper"] == pytest.approx(gap, rel=2e-3)
        assert result["normal_error_degrees"][side]["mean"] == pytest.approx(0.0, abs=1e-3)
    scores = {threshold: score["f"] for threshold, score in result["exact"]["f_score"].items()}
    assert scores == {"0.001": 0.0, "0.005": 0.0, "0.01": 1.0, "0.02": 1.0}
    # a sampled point's neighbours lie around its foot: squared distances add the floor to the gap's square
    squared = result["sampled"]["chamfer_l2"]
    assert squared["half_sum"] == pytest.approx(gap**2 + squared["floor"]["half_sum"], rel=0.01)
    assert squared["floor"]["half_sum"] == pytest.approx(1.0 / (math.pi * POINTS), rel=0.05)
    share = 1 - math.exp(-math.pi * (0.01**2 - gap**2) * POINTS)
    assert result["sampled"]["f_score"]["0.01"]["f"] == pytest.approx(share, abs=0.005)
    assert result["iou"]["value"] is None and "reference has no inside: 32 of its edges" in result["iou"]["reason"]


def test_larger_box():
    """Completeness is the gap everywhere; accuracy grows towards the rims of the larger box's faces."""
    half, gap = 0.3, 0.02
    result = unit(cube(4, half=half + gap), cube(3, half=half))
    side = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * (half + gap)
    beyond = (side - half).clamp(min=0)
    distance = (gap**2 + beyond[:, None] ** 2 + beyond**2).sqrt()
    exact = result["exact"]
    assert exact["completeness"]["mean"] == pytest.approx(gap, rel=1e-5)
    error = result["standard_error"]["exact"]["accuracy"]["mean"]
    assert exact["accuracy"]["mean"] == pytest.approx(float(distance.mean()), abs=4 * error)
    assert result["hausdorff"]["accuracy"]["lower"] == pytest.approx(gap * math.sqrt(3), rel=1e-5)
    assert result["hausdorff"]["upper"] == pytest.approx(gap * math.sqrt(3), rel=2e-3)
    assert result["area_ratio"] == pytest.approx(((half + gap) / half) ** 2, rel=1e-5)
    iou = (half / (half + gap)) ** 3
    assert result["volume_ratio"] == pytest.approx(1 / iou, rel=1e-5)
    assert result["iou"]["value"] == pytest.approx(iou, abs=4 * result["standard_error"]["iou"]["value"])


def test_f_score_of_a_half_that_is_right():
    """One of two equal squares is kept, and one as large stands elsewhere: precision and recall are a half."""
    first, second, wrong = square(), moved(square(), 2.0, 0, 0), moved(square(), 0, 0, 1.0)
    scores = unit(together(first, wrong), together(first, second))["exact"]["f_score"]["0.01"]
    assert scores["precision"] == pytest.approx(0.5, abs=0.01) and scores["recall"] == pytest.approx(0.5, abs=0.01)
    assert scores["f"] == pytest.approx(0.5, abs=0.01)
    three = unit(together(first, second, wrong), first)["exact"]["f_score"]["0.01"]
    assert (three["recall"], three["f"]) == (1.0, pytest.approx(2 * three["precision"] / (three["precision"] + 1)))
    assert three["precision"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.79, 1.0])
def test_volume_of_shifted_boxes(shift: float):
    result = unit(moved(cube(2), shift, 0, 0), cube(2))
    expected, error = max(0.8 - shift, 0) / (0.8 + shift), result["standard_error"]["iou"]["value"]
    assert result["iou"]["value"] == pytest.approx(expected, abs=4 * error) and error < 0.005


def test_inside_of_inverted_and_double_shells():
    solid, inverted = sphere(steps=8), Mesh(sphere(steps=8).vertices, sphere(steps=8).faces.flip(1))
    assert unit(inverted, solid)["iou"]["value"] == 1.0
    shell = together(sphere(0.4, 8), Mesh(sphere(0.39, 8).vertices, sphere(0.39, 8).faces.flip(1)))
    result = unit(shell, sphere(0.4, 8))
    expected = 1 - (0.39 / 0.4) ** 3
    assert result["iou"]["value"] == pytest.approx(expected, abs=4 * result["standard_error"]["iou"]["value"])
    signed = result["normal_error_signed_degrees"]["accuracy"]["mean"]
    assert signed == pytest.approx(90, abs=4) and result["normal_error_degrees"]["accuracy"]["mean"] < 2


def test_reason_for_no_inside():
    ball = sphere(steps=8)
    bowl = Mesh(ball.vertices, ball.faces[ball.vertices[ball.faces].mean(1)[:, 1] < 0.1])
    for prediction, reference, words in (
        (ball, bowl, "the reference has no inside: 38 of its edges are open and its winding number"),
        (bowl, ball, "the prediction has no inside: 38"),
        (moved(square(), 0, 0, 0.4), ball, "the prediction has no inside: 32 of its edges"),
        (ball, together(*(moved(square(), 0, 0, z / 400) for z in range(400))), "12,800 of its edges are open"),
    ):
        iou = unit(prediction, reference)["iou"]
        assert iou["value"] is None and iou["floor"] is None and words in iou["reason"]


def test_inside_of_almost_closed_meshes():
    """A missing and a turned face among 768 leave the volume what it is; two sheets back to back hold nothing."""
    ball = sphere(steps=8)
    turned = ball.faces.clone()
    turned[5] = turned[5].flip(0)
    for damaged in (Mesh(ball.vertices, ball.faces[1:]), Mesh(ball.vertices, turned)):
        iou = unit(damaged, ball)["iou"]
        assert iou["value"] > 0.99 and 0 < iou["ambiguous_prediction"] < 0.01 and iou["ambiguous_reference"] == 0
    sheets = together(square(), Mesh(square().vertices, square().faces.flip(1)))
    iou = unit(sheets, cube(2))["iou"]
    assert iou["value"] == 0.0 and iou["inside_prediction"] == 0


def test_split_vertices_open_a_closed_mesh():
    soup = Mesh(
        sphere(steps=8).vertices[sphere(steps=8).faces].reshape(-1, 3),
        torch.arange(3 * len(sphere(steps=8).faces)).reshape(-1, 3),
    )
    result = unit(soup, sphere(steps=8))
    assert not result["prediction"]["watertight"] and result["iou"]["value"] == 1.0


def test_papers_numbers_of_a_larger_sphere():
    """Every paper's score from distances in its own frame, at their own scales."""
    reference, prediction = sphere(3.0), sphere(3.03)  # the chords of both spheres keep the ratio
    results = compare_all(prediction, reference, points=POINTS, full=False)
    radius = {"exact-v1": 0.475, "log3d-v1": 0.49, "focusing-v1": 0.5, "lagem-v1": 1.0}
    for name, result in results.items():
        size = radius[name.replace("-outer", "")]  # a sphere has no inner surface
        assert result["frame"]["scale"] == pytest.approx(size / 3.0, rel=1e-3)
        assert result["exact"]["completeness"]["p50"] == pytest.approx(0.01 * size, rel=0.01)
        area, gap = 4 * math.pi * size**2, 0.01 * size
        squared = 2 * gap**2 + 2 * area / (math.pi * POINTS)
        assert result["sampled"]["chamfer_l2"]["sum"] == pytest.approx(squared, rel=0.03)
    for name, key, path, factor in (
        ("focusing-v1", "chamfer_l2", ("chamfer_l2", "sum"), 1e5),
        ("lagem-v1", "chamfer_l1", ("chamfer_l1", "sum"), 100.0),
        ("log3d-v1", "chamfer_l1", ("chamfer_l1", "half_sum"), 1.0),
    ):
        score, sampled = results[name]["paper"]["chamfer"], results[name]["sampled"]
        assert score["value"] == pytest.approx(factor * sampled[key][path[1]])
        assert score["floor"] == pytest.approx(factor * sampled[key]["floor"][path[1]])
    assert (
        results["lagem-v1"]["paper"]["f_0.02"]["value"] == 100 * results["lagem-v1"]["sampled"]["f_score"]["0.02"]["f"]
    )
    assert set(results["focusing-v1"]["sampled"]["f_score"]) == {"0.005"}


def test_standard_errors_are_those_of_repetitions():
    """Over 30 seeds: none is too small by more than half, none is larger than 2.5 times what it should be."""
    from walking import lookup, numbers

    one, two = sphere(0.41, 6), cube(3, half=0.3)
    results = [unit_small(one, two, seed) for seed in range(30)]
    for path, _ in numbers(results[0]["standard_error"]):
        if "voxels" in path or lookup(results[0], path) in (0.0, 1.0, 100.0):
            continue
        spread = np.std([lookup(result, path) for result in results])
        stated = np.sqrt(np.mean([lookup(result["standard_error"], path) ** 2 for result in results]))
        assert 0.67 * spread < stated < 2.5 * spread + 1e-12, (path, spread, stated)


def unit_small(one: Mesh, two: Mesh, seed: int) -> dict:
    return compare(one, two, points=800, frame=Similarity(), seed=seed, protocol="log3d-v1")
