"""Loops of a border: rings, rings that touch, dead ends; the compiled walk against the plain one."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.boundary_loops import boundary_loops


def ring(vertices: list[int]) -> list[list[int]]:
    return [list(pair) for pair in zip(vertices, vertices[1:] + vertices[:1], strict=True)]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rings_that_touch_in_a_vertex_are_two_loops(backend):
    edges = torch.tensor(ring([0, 1, 2, 3]) + ring([7, 2, 9]) + ring([20, 21, 22]))
    loops = boundary_loops(edges, backend=backend)
    assert len(set(loops.tolist())) == 3
    assert all(len(set(part.tolist())) == 1 for part in loops.split([4, 3, 3]))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_dead_ends_are_on_no_loop(backend):
    edges = torch.tensor([[0, 1], [1, 2], *ring([5, 6, 7])])
    assert boundary_loops(edges, backend=backend).tolist() == [-1, -1, 0, 0, 0]


def test_empty_border():
    assert len(boundary_loops(torch.zeros(0, 2, dtype=torch.long))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_cpu_against_reference(seed):
    draw = torch.Generator().manual_seed(seed)
    cycles = [torch.randperm(60, generator=draw)[: 3 + seed * 4].tolist() for _ in range(20)]
    edges = torch.tensor([pair for cycle in cycles for pair in ring(cycle)] + [[61, 3], [4, 62]])
    edges = edges[torch.randperm(len(edges), generator=draw)]
    loops = boundary_loops(edges, backend="cpu")
    assert torch.equal(loops, boundary_loops(edges, backend="reference"))
    for loop in range(int(loops.max()) + 1):
        part = edges[loops == loop]
        assert len(part[:, 0].unique()) == len(part)
        assert torch.equal(part[:, 0].sort().values, part[:, 1].sort().values)


def test_shapes_that_do_not_fit():
    with pytest.raises(BadArgument):
        boundary_loops(torch.zeros(3, 3, dtype=torch.long))
