"""Clusters of a signed graph: strong positive votes join, strong negative ones keep apart (the mutex watershed).

Wolf et al., "The Mutex Watershed", ECCV 2018: Kruskal's algorithm with cannot-link constraints. The graph is small (the
patches of a surface, not its vertices), so there is no CUDA path.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")


def mutex_clusters(count: int, ends: Tensor, votes: Tensor, *, backend: str = "auto") -> Tensor:
    """Clusters of nodes, votes being taken from the strongest to the weakest.

    Args:
        count: nodes.
        ends: (E, 2) int64 on the CPU.
        votes: (E,) float64; a positive one joins its ends unless an earlier negative one holds their clusters apart, a
            negative one holds them apart unless they are joined already. Of equally strong ones the first row counts first.
        backend: auto, reference or cpu (numba).

    Returns:
        (count,) int64, the lowest node of each cluster.

    Raises:
        BadArgument: shapes that do not fit, tensors that are not on the CPU, or an unknown backend.
    """
    if ends.ndim != 2 or ends.shape[1] != 2 or votes.shape != ends.shape[:1] or ends.device.type != "cpu":
        raise BadArgument(
            f"expected ends (E, 2) and votes (E,) on the CPU, got {tuple(ends.shape)} and {tuple(votes.shape)}.",
            where="mutex_clusters",
        )
    which = choose(backend, ends.device, available=BACKENDS, op="mutex_clusters")
    order = torch.argsort(-votes.abs(), stable=True)
    arrays = ends[order].numpy(), (votes[order] > 0).numpy()
    if which == "cpu":
        from shapecodec.ops.mutex_clusters.cpu import cluster

        return torch.from_numpy(cluster(count, *arrays))
    from shapecodec.ops.mutex_clusters.reference import cluster as cluster_plainly

    return torch.from_numpy(cluster_plainly(count, *arrays))
