import json
import math

import numba
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.evaluate.compare import format_comparison
from shapecodec.evaluate.metrics import compare, line_angles, sampled_scores
from shapecodec.evaluate.protocol import EXACT, LOG3D, PROTOCOLS, find_protocol
from shapecodec.evaluate.topology import topology
from shapecodec.mesh import Mesh, Similarity

POINTS = 20_000


def sphere(radius: float = 0.4, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), steps: int = 64) -> Mesh:
    """A closed latitude-longitude sphere."""
    phi = torch.arange(1, steps) * math.pi / steps
    theta = torch.arange(2 * steps) * math.pi / steps
    ring = torch.stack([theta.cos(), torch.zeros_like(theta), -theta.sin()], -1)
    grid = phi.sin()[:, None, None] * ring + phi.cos()[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
    vertices = torch.cat([grid.reshape(-1, 3), torch.tensor([[0.0, 1, 0], [0.0, -1, 0]])])
    rows, columns = torch.meshgrid(torch.arange(steps - 2), torch.arange(2 * steps), indexing="ij")
    a, b = rows * 2 * steps + columns, rows * 2 * steps + (columns + 1) % (2 * steps)
    c, d = a + 2 * steps, b + 2 * steps
    last, around = (steps - 2) * 2 * steps, torch.arange(2 * steps)
    top = torch.stack([torch.full_like(around, len(vertices) - 2), around, (around + 1) % (2 * steps)], -1)
    low = torch.stack(
        [torch.full_like(around, len(vertices) - 1), last + (around + 1) % (2 * steps), last + around], -1
    )
    quads = torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)])
    return Mesh(vertices * radius + torch.tensor(centre), torch.cat([quads, top, low]))


def unit(prediction: Mesh, reference: Mesh, **options):
    return compare(prediction, reference, points=options.pop("points", POINTS), frame=Similarity(), **options)


def test_a_mesh_against_itself():
    mesh = sphere()
    result = compare(mesh, mesh, points=POINTS, resolution=128)
    for side in ("accuracy", "completeness"):
        assert result["exact"][side]["max"] < 1e-6 and result["exact"][f"{side}_voxels"]["max"] < 1e-4
        assert result["normal_error_degrees"][side]["p50"] < 0.05
    assert all(score["f"] == 1.0 for score in result["exact"]["f_score"].values())
    assert result["area_ratio"] == 1.0 and result["volume_ratio"] == 1.0


def test_scaled_sphere_is_off_by_the_difference_of_radii():
    result = unit(sphere(0.41), sphere(0.4), resolution=100)
    for side in ("accuracy", "completeness"):
        numbers = result["exact"][side]
        assert numbers["mean"] == pytest.approx(0.01, rel=0.02) and numbers["max"] == pytest.approx(0.01, rel=0.1)
        assert result["exact"][f"{side}_voxels"]["p50"] == pytest.approx(1.0, rel=0.03)
    scores = result["exact"]["f_score"]
    assert scores["0.005"]["f"] == 0.0 and scores["0.02"]["f"] == 1.0
    assert result["area_ratio"] == pytest.approx((0.41 / 0.4) ** 2, rel=1e-5)
    assert result["volume_ratio"] == pytest.approx((0.41 / 0.4) ** 3, rel=1e-5)


def test_shifted_sphere_is_off_by_half_the_shift_on_average():
    """|distance| = shift * |cos| to first order, whose mean over a sphere is 1/2 and whose maximum is 1."""
    result = unit(sphere(centre=(0.01, 0, 0)), sphere())
    for side in ("accuracy", "completeness"):
        assert result["exact"][side]["mean"] == pytest.approx(0.005, rel=0.03)
        assert result["exact"][side]["max"] == pytest.approx(0.01, rel=0.03)


def test_roles_are_symmetric():
    one, two = unit(sphere(0.41), sphere(0.4)), unit(sphere(0.4), sphere(0.41))
    assert one["exact"]["accuracy"]["mean"] == pytest.approx(two["exact"]["completeness"]["mean"], rel=0.01)
    assert one["sampled"]["chamfer_l1"]["sum"] == pytest.approx(two["sampled"]["chamfer_l1"]["sum"], rel=0.02)


def test_a_lost_part_shows_in_completeness_only():
    whole = sphere()
    upper = whole.vertices[whole.faces].mean(1)[:, 1] > 0
    half = Mesh(whole.vertices, whole.faces[upper])
    result = unit(half, whole)
    assert result["exact"]["accuracy"]["max"] < 1e-6 and result["exact"]["completeness"]["max"] > 0.3
    assert not result["prediction"]["watertight"] and result["prediction"]["boundary_edges"] > 0
    assert result["volume_ratio"] is None and result["area_ratio"] == pytest.approx(0.5, rel=0.05)


def test_double_shell_and_flipped_layer():
    inner, outer = sphere(0.399), sphere(0.401)
    both = Mesh(
        torch.cat([inner.vertices, outer.vertices]), torch.cat([inner.faces.flip(1), outer.faces + len(inner.vertices)])
    )
    result = unit(both, sphere())
    assert result["area_ratio"] == pytest.approx(2.0, rel=1e-3) and result["prediction"]["components"] == 2
    assert result["exact"]["accuracy"]["mean"] == pytest.approx(0.001, rel=0.05)
    assert result["normal_error_degrees"]["mean"] < 2.0


def test_floor_follows_its_formula():
    mesh = sphere()
    area, radius = float(mesh.face_areas().sum()), 0.005
    sampled = unit(mesh, mesh)["sampled"]
    assert sampled["chamfer_l1"]["floor"]["half_sum"] == pytest.approx(0.5 * math.sqrt(area / POINTS), rel=0.03)
    assert sampled["chamfer_l2"]["floor"]["sum"] == pytest.approx(2 * area / (math.pi * POINTS), rel=0.05)
    expected = 1 - math.exp(-math.pi * radius**2 * POINTS / area)
    assert sampled["f_score"]["0.005"]["floor"] == pytest.approx(expected, rel=0.03)
    assert sampled["f_score"]["0.005"]["f"] == pytest.approx(expected, rel=0.03)


def test_sampled_scores_against_pairwise_distances():
    generator = torch.Generator().manual_seed(0)
    one, two, again = (torch.rand(count, 3, generator=generator) * 0.05 for count in (300, 400, 350))
    scores = sampled_scores(one, two, again, (0.002, 0.005))
    pairs = torch.cdist(one.double(), two.double(), compute_mode="donot_use_mm_for_euclid_dist")
    accuracy, completeness = pairs.min(1).values, pairs.min(0).values
    assert scores["chamfer_l1"]["half_sum"] == pytest.approx(float(accuracy.mean() + completeness.mean()) / 2, rel=1e-6)
    assert scores["chamfer_l2"]["completeness"] == pytest.approx(float(completeness.square().mean()), rel=1e-6)
    precision, recall = float((accuracy < 0.005).double().mean()), float((completeness < 0.005).double().mean())
    assert scores["f_score"]["0.005"]["f"] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-6)


def test_prediction_is_never_normalised_by_itself():
    reference = sphere(30.0, (1000.0, -50.0, 7.0))
    larger = sphere(33.0, (1000.0, -50.0, 7.0))
    result = compare(larger, reference, points=POINTS)
    assert result["exact"]["accuracy"]["mean"] == pytest.approx(0.95 * 3 / 60, rel=0.02)


def test_deterministic_in_the_seed_whatever_the_threads():
    one, two, threads = sphere(0.41), sphere(), numba.get_num_threads()
    first = unit(one, two, points=5000)
    try:
        numba.set_num_threads(1)
        second = unit(one, two, points=5000)
    finally:
        numba.set_num_threads(threads)
    assert first == second
    assert unit(one, two, points=5000, seed=1)["exact"] != first["exact"]


@pytest.mark.gpu
def test_cuda_gives_the_same_numbers_up_to_sampling(device: str):
    one, two = sphere(0.41, steps=256), sphere(steps=256)
    there, here = (unit(one, two, points=200_000, resolution=256, device=where) for where in (device, "cpu"))
    assert there["prediction"] == here["prediction"]
    for side in ("accuracy", "completeness"):
        assert there["exact"][side]["mean"] == pytest.approx(here["exact"][side]["mean"], rel=1e-3)
    for name in ("chamfer_l1", "chamfer_l2"):
        assert there["sampled"][name]["sum"] == pytest.approx(here["sampled"][name]["sum"], rel=0.01)


def test_line_angles_are_unsigned_and_fine():
    x = torch.tensor([[1.0, 0, 0]]).expand(4, 3)
    small = math.radians(0.001)
    other = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [math.cos(small), math.sin(small), 0], [0, 0, 0]])
    assert torch.allclose(line_angles(x, other), torch.tensor([0.0, 90.0, 0.001]), rtol=1e-3, atol=1e-6)


def test_topology_of_open_joined_and_repeated_faces():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0], [5, 5, 5]])
    book = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [1, 1, 2]]))
    counts = topology(book)
    assert (counts.boundary_edges, counts.non_manifold_edges, counts.components) == (6, 1, 1)
    assert not counts.watertight and counts.volume is None
    closed = topology(sphere(0.5, (3.0, 2.0, 1.0)))
    assert closed.watertight and closed.components == 1
    assert closed.volume == pytest.approx(math.pi / 6, rel=5e-3) and closed.area == pytest.approx(math.pi, rel=5e-3)


def test_result_is_json_and_prints_its_definitions():
    result = compare(sphere(0.41), sphere(), points=1000, resolution=64, protocol="log3d-v1")
    assert json.loads(json.dumps(result)) == result
    text = format_comparison(result)
    lines = " ".join(text.split())
    assert "log3d-v1" in text and all(words in lines for words in LOG3D.definitions.values())
    assert format_comparison(compare(sphere(), sphere(), points=100), definitions=False)


def test_protocols_are_found_by_name():
    assert find_protocol("exact-v1") is EXACT
    assert all(find_protocol(name).name == name for name in PROTOCOLS)
    with pytest.raises(BadArgument, match="unknown protocol"):
        find_protocol("mine")


@pytest.mark.parametrize("options", [{"points": 0}, {"resolution": 0}, {"protocol": "mine"}])
def test_bad_options_are_named(options: dict):
    with pytest.raises(BadArgument):
        compare(sphere(), sphere(), **options)
