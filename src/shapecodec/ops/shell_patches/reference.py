"""The specification of `shell_patches` in torch; also the CUDA path."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.components.reference import lowest_connected
from shapecodec.ops.shell_patches import BENT, FLAT, GROW_ROUNDS


def shell_patches(directions: Tensor, faces: Tensor, opposite: Tensor) -> Tensor:
    """See the package."""
    count = len(directions)
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).long()
    paired, other = opposite >= 0, opposite.clamp(min=0)
    start, end = edges.unbind(1)
    alike = _cosine(directions[start], directions[end])
    alike_opposite = _cosine(directions[other[start]], directions[other[end]])
    flat = paired[start] & paired[end] & (alike > FLAT) & (alike_opposite > FLAT)
    label = torch.where(paired, lowest_connected(count, edges[flat], None), -1)
    for _ in range(GROW_ROUNDS):
        label = _grow(label, edges, alike)
    left = label < 0
    bends = left[start] & left[end] & (alike > BENT)
    return torch.where(left, lowest_connected(count, edges[bends], None), label)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """(E,) in the order of operations of the compiled path, so that equal likeness is equal in both."""
    return first[:, 0] * second[:, 0] + first[:, 1] * second[:, 1] + first[:, 2] * second[:, 2]


def _grow(label: Tensor, edges: Tensor, alike: Tensor) -> Tensor:
    open_edges = (label[edges[:, 0]] < 0) & (label[edges[:, 1]] >= 0)
    vertex, source = edges[open_edges].unbind(1)
    likeness = alike[open_edges]
    best = torch.full((len(label),), -2.0, device=label.device).scatter_reduce_(0, vertex, likeness, "amax")
    chosen = likeness == best[vertex]
    lowest = torch.full_like(label, torch.iinfo(torch.int64).max)
    lowest.scatter_reduce_(0, vertex[chosen], label[source[chosen]], "amin")
    return torch.where((label < 0) & (best > -2.0), lowest, label)
