"""Connected components: the reference against flooding, the fast path against the reference."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.components import components


def graph(count: int, rows: int, width: int = 2) -> torch.Tensor:
    return torch.randint(0, count, (rows, width), generator=torch.Generator().manual_seed(rows))


def by_flooding(count: int, joined: torch.Tensor) -> torch.Tensor:
    reach = torch.eye(count)
    for row in joined:
        reach[row[:, None], row] = 1
    for _ in range(12):
        reach = (reach @ reach).clamp(max=1)
    return torch.unique(reach.argmax(1), return_inverse=True)[1]


@pytest.mark.parametrize(("count", "rows", "width"), [(1, 0, 2), (5, 0, 3), (60, 25, 2), (90, 30, 3), (40, 200, 2)])
def test_reference_against_flooding(count, rows, width):
    joined = graph(count, rows, width)
    assert torch.equal(components(count, joined, backend="reference"), by_flooding(count, joined))


@pytest.mark.parametrize(("count", "rows", "width"), [(0, 0, 2), (1, 0, 3), (3000, 1400, 2), (3000, 900, 3)])
def test_cpu_against_reference(count, rows, width):
    joined = graph(max(count, 1), rows, width)
    expected = components(count, joined, backend="reference")
    assert torch.equal(components(count, joined, backend="cpu"), expected)
    assert torch.equal(components(count, joined.int(), backend="cpu"), expected)


@pytest.mark.parametrize("width", [2, 3])
def test_groups_are_not_connected(width):
    joined, group = graph(500, 800, width), torch.arange(500) % 3
    edges = torch.cat([joined[:, [a, b]] for a in range(width) for b in range(a)])
    expected = components(500, edges[group[edges[:, 0]] == group[edges[:, 1]]], backend="reference")
    for backend in ("reference", "cpu"):
        assert torch.equal(components(500, joined, group, backend=backend), expected)


def test_long_chain_backwards():
    chain = torch.stack([torch.arange(1, 5000), torch.arange(4999)], 1).flip(0)
    for backend in ("reference", "cpu"):
        assert not components(5000, chain, backend=backend).any()


def test_rows_of_one_vertex():
    with pytest.raises(BadArgument):
        components(3, torch.zeros(3, 1, dtype=torch.long))


@pytest.mark.gpu
def test_cuda_against_cpu():
    joined = graph(3_000_000, 2_900_000)
    assert torch.equal(components(3_000_000, joined.cuda()).cpu(), components(3_000_000, joined, backend="cpu"))
