"""Pairs of near vertices: the reference against all pairs, the fast paths against the reference."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.layer_pairs import covered_vertices, opposite_vertices, vertex_cells


def cloud(count: int, extent: float = 6.0, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    points = torch.rand(count, 3, generator=draw) * extent - 1.0
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=1)
    return points.to(device), directions.to(device)


def test_opposite_against_all_pairs():
    points, directions = cloud(700)
    way = points[None] - points[:, None]
    along = (way * directions[:, None]).sum(2)
    square = (way * way).sum(2)
    fits = (directions @ directions.T <= -0.6) & (along.abs() <= 0.5) & (square <= 1)
    beside = torch.where(fits, square - along**2, torch.inf)
    expected = torch.where(fits.any(1), beside.argmin(1), -1)
    found = opposite_vertices(vertex_cells(points, backend="reference"), directions, alignment=-0.6)
    assert (expected >= 0).sum() > 200
    assert torch.equal(found, expected)


def test_covered_against_all_pairs():
    points, _ = cloud(400)
    owner = torch.arange(400) % 5 - 1
    asked = torch.arange(400) % 3 > 0
    near = (points[None] - points[:, None]).square().sum(2) <= 1
    expected = (near & (owner[None] != owner[:, None]) & (owner[None] >= 0)).any(1) & asked
    assert 0 < expected.sum() < asked.sum()
    assert torch.equal(covered_vertices(vertex_cells(points, backend="reference"), owner, asked), expected)


@pytest.mark.parametrize(
    ("backend", "count"),
    [("cpu", 0), ("cpu", 1), ("cpu", 2), ("cpu", 5000), ("triton", 0), ("triton", 1), ("triton", 150)],
)
def test_fast_paths_against_reference(backend, count):
    points, directions = cloud(count, extent=3.0 + count**0.4)
    owner, asked = torch.arange(count) // 7 % 4 - 1, torch.arange(count) % 4 > 0
    plain, fast = vertex_cells(points, backend="reference"), vertex_cells(points, backend=backend)
    options = {"thickness": 0.4, "alignment": -0.5}
    want = opposite_vertices(plain, directions, **options)
    assert torch.equal(opposite_vertices(fast, directions, **options), want)
    assert torch.equal(covered_vertices(fast, owner, asked), covered_vertices(plain, owner, asked))


def test_shapes_that_do_not_fit():
    with pytest.raises(BadArgument):
        vertex_cells(torch.zeros(4))
    with pytest.raises(BadArgument):
        opposite_vertices(vertex_cells(torch.zeros(4, 3)), torch.zeros(3, 3))
    with pytest.raises(BadArgument):
        covered_vertices(vertex_cells(torch.zeros(4, 3)), torch.zeros(4), torch.zeros(3, dtype=torch.bool))


@pytest.mark.gpu
def test_triton_against_reference_on_a_million():
    points, directions = cloud(1_000_000, extent=150.0, device="cuda")
    plain, fast = vertex_cells(points, backend="reference"), vertex_cells(points, backend="triton")
    want = opposite_vertices(plain, directions, alignment=-0.5)
    assert (opposite_vertices(fast, directions, alignment=-0.5) == want).float().mean() > 0.9999
    owner, asked = (
        torch.arange(len(points), device="cuda") % 3,
        torch.ones(len(points), dtype=torch.bool, device="cuda"),
    )
    want = covered_vertices(plain, owner, asked)
    assert (covered_vertices(fast, owner, asked) == want).float().mean() > 0.9999
