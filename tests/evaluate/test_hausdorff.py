import math

import pytest
import torch
from solids import cube, moved, sphere, together

from shapecodec.evaluate import hausdorff as module
from shapecodec.evaluate.hausdorff import hausdorff
from shapecodec.evaluate.metrics import compare
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.closest_point import closest_point


def triangles(count: int, seed: int, spread: float = 0.3) -> Mesh:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 1, 3, generator=generator) + spread * torch.randn(count, 3, 3, generator=generator)
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))


def dense(mesh: Mesh, steps: int) -> torch.Tensor:
    """Points on a grid of every triangle, corners included."""
    i, j = torch.meshgrid(torch.arange(steps + 1), torch.arange(steps + 1), indexing="ij")
    u, v = i[i + j <= steps] / steps, j[i + j <= steps] / steps
    return torch.einsum("pk,fkc->fpc", torch.stack([1 - u - v, u, v], 1), mesh.vertices[mesh.faces]).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_miss_the_distance_of_a_dense_grid(seed: int):
    source, target = triangles(5 + seed, seed), triangles(12, seed + 50)
    bounds, steps = hausdorff(source, target), 200
    corners = source.vertices[source.faces]
    step = float((corners - corners.roll(1, 1)).norm(dim=2).max()) / steps
    largest = float(closest_point(dense(source, steps), target.vertices, target.faces).distance.max())
    assert largest <= bounds.upper + 1e-6 and bounds.lower <= largest + step
    assert bounds.lower <= bounds.upper <= 1.002 * bounds.lower + 1e-5


def test_largest_distance_far_from_every_vertex():
    """A large square over four small ones at its corners: the middle is farthest."""
    square = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    small = moved(square, scale=0.1)
    corners = together(*(moved(small, x, y, 0) for x in (0.0, 0.9) for y in (0.0, 0.9)))
    bounds = hausdorff(square, corners)
    expected = 0.4 * math.sqrt(2)
    assert bounds.lower <= expected * 1.0001 and bounds.upper >= expected * 0.9999
    assert bounds.upper - bounds.lower < 2e-3 * expected
    assert hausdorff(corners, square).upper < 1e-6


def test_spike_between_the_samples():
    """A needle of a vertex, of no area to speak of: samples miss it, the bounds do not."""
    body = cube(4)
    tip = torch.tensor([[0.1, 0.9, 0.1], [0.1, 0.4, 0.1], [0.100001, 0.4, 0.1]])
    spiked = together(body, Mesh(tip, torch.tensor([[0, 1, 2]])))
    result = compare(spiked, body, points=3000, frame=Similarity(), full=True)
    assert result["exact"]["accuracy"]["max"] < 1e-5
    assert result["hausdorff"]["lower"] == pytest.approx(0.5, rel=1e-5)
    assert result["hausdorff"]["completeness"]["upper"] < 1e-5


def test_a_mesh_is_far_from_itself():
    mesh = sphere(0.4, 10)
    assert hausdorff(mesh, mesh).upper < 2e-6
    finer = sphere(0.4, 20)
    bounds = hausdorff(finer, mesh)
    sampled = float(closest_point(dense(finer, 8), mesh.vertices, mesh.faces).distance.max())
    assert sampled <= bounds.upper + 1e-7 and bounds.upper < 1.01 * sampled + 2e-6


@pytest.mark.parametrize("name", ["CUTS", "MOST"])
def test_effort_ends_with_wrong_bounds(name: str, monkeypatch):
    """With no effort left the bounds are apart, and still hold."""
    one, two = sphere(0.41, 8), moved(sphere(0.4, 9), 0.01, 0.003, 0)
    good = hausdorff(one, two)
    monkeypatch.setattr(module, name, 10)
    rough = hausdorff(one, two)
    assert rough.lower <= good.upper and good.lower <= rough.upper
    assert rough.upper - rough.lower > good.upper - good.lower


def test_unused_vertices_count():
    far = Mesh(torch.cat([cube(2).vertices, torch.tensor([[50.0, 0, 0]])]), cube(2).faces)
    assert hausdorff(far, cube(2)).upper < 1e-6
