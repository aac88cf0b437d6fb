"""Clusters of a signed graph: small cases by hand, the compiled path against the one with sets."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.mutex_clusters import mutex_clusters


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_strong_constraint_cuts_the_weakest_link_of_a_chain(backend):
    ends = torch.tensor([[0, 1], [1, 2], [2, 3], [0, 3]])
    votes = torch.tensor([3.0, 1.0, 2.0, -2.5], dtype=torch.float64)
    assert mutex_clusters(4, ends, votes, backend=backend).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_weak_constraint_comes_too_late(backend):
    ends, votes = torch.tensor([[0, 1], [0, 1]]), torch.tensor([-1.0, 2.0], dtype=torch.float64)
    assert mutex_clusters(3, ends, votes, backend=backend).tolist() == [0, 0, 2]


@pytest.mark.parametrize("count", [1, 2, 50, 400])
def test_cpu_against_reference(count):
    draw = torch.Generator().manual_seed(count)
    ends = torch.randint(0, count, (6 * count, 2), generator=draw)
    votes = torch.randn(6 * count, generator=draw, dtype=torch.float64) + 0.3
    got = mutex_clusters(count, ends, votes, backend="cpu")
    assert torch.equal(got, mutex_clusters(count, ends, votes, backend="reference"))


def test_shapes_that_do_not_fit():
    with pytest.raises(BadArgument):
        mutex_clusters(3, torch.zeros(2, 3, dtype=torch.long), torch.zeros(2))
