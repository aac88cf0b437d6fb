"""Cuts a shell into regions that may be kept or dropped as a whole.

The two layers of a closed part are separate components of the shell, and each is a region. Those of an open sheet, or of a
fin inside a box, hang together at the rim: the component has vertices opposite to each other. Such a component is
cut along its weakest links. Flat, paired vertices form patches; a patch votes "apart" for the patch opposite to it and,
weakly, "together" for those beside it, and the strongest votes count first. The votes are settled twice and both cuts are
made: in clusters that hold nothing opposite (any number of them: a part that touches two others has three layers in a
cycle), and in two colours (a fin on a wall: three sheets, but one layer of each suffices if the cut runs along the joint).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.ops.components import components
from shapecodec.ops.mutex_clusters import mutex_clusters
from shapecodec.ops.shell_patches import shell_patches

SELF_PAIRED = 0.02  # of a component's vertices, above which it is cut
BESIDE = 0.1  # vote of an edge against 1 of an opposite pair: pairs rule wherever there are any
SMALLEST = 32  # vertices; smaller regions are noise and join what surrounds them


@dataclass(frozen=True)
class Shell:
    """An eps-isosurface: closed, oriented towards the growing field.

    Args:
        points: (V, 3) float32 snapped vertices in voxels.
        directions: (V, 3) float32 unit, away from the surface.
        faces: (F, 3) int32 or int64.
        opposite: (V,) int64 vertex on the other layer, or -1.
    """

    points: Tensor
    directions: Tensor
    faces: Tensor
    opposite: Tensor


@dataclass(frozen=True)
class Regions:
    """A partition of the shell's vertices.

    Args:
        component: (V,) int64, the shell's connected component.
        region: (V,) int64; a component that needs no cut is one region.
        seams: (E, 2) int64 edges between regions, in both directions.
    """

    component: Tensor
    region: Tensor
    seams: Tensor


def cut_into_regions(shell: Shell) -> Regions:
    """The regions of a shell."""
    count = len(shell.points)
    component = components(count, shell.faces)
    other = shell.opposite
    among_themselves = (other >= 0) & (component[other.clamp(min=0)] == component)
    share = torch.bincount(component[among_themselves], minlength=int(component.max()) + 1) / torch.bincount(component)
    cut = (share > SELF_PAIRED)[component]
    if not bool(cut.any()):
        return Regions(component, component, component.new_zeros(0, 2))
    faces = shell.faces[cut[shell.faces[:, 0].long()]]
    group = torch.where(cut, _groups(shell, faces, torch.where(among_themselves & cut, other, -1)), -1)
    region = components(count, shell.faces, group)
    region = components(count, shell.faces, _without_specks(group, region, _edges_between(faces, region)))
    return Regions(component, region, _edges_between(faces, region))


def _edges_between(faces: Tensor, label: Tensor) -> Tensor:
    """(E, 2) int64 edges between vertices of different labels, in both directions."""
    a, b, c = (label[corner.long()] for corner in faces.unbind(1))
    mixed = faces[(a != b) | (b != c)].long()
    edges = torch.cat([mixed[:, [0, 1]], mixed[:, [1, 2]], mixed[:, [2, 0]]])
    return edges[label[edges[:, 0]] != label[edges[:, 1]]]


def _without_specks(group: Tensor, region: Tensor, edges: Tensor) -> Tensor:
    """Gives the vertices of every small region the group that most of the edges around it lead to (lowest of equals)."""
    small = torch.bincount(region) < SMALLEST
    around = edges[small[region[edges[:, 0]]] & ~small[region[edges[:, 1]]]]
    count = int(group.max()) + 1
    key, times = torch.unique(region[around[:, 0]] * count + group[around[:, 1]], return_counts=True)
    speck, found = torch.div(key, count, rounding_mode="floor"), key % count
    order = torch.argsort(times, descending=True, stable=True)
    order = order[torch.argsort(speck[order], stable=True)]
    first = torch.ones(len(order), dtype=torch.bool, device=key.device)
    first[1:] = speck[order][1:] != speck[order][:-1]
    new = torch.full((int(region.max()) + 1,), -1, device=key.device)
    new[speck[order][first]] = found[order][first]
    return torch.where(new[region] >= 0, new[region], group)


def _groups(shell: Shell, faces: Tensor, opposite: Tensor) -> Tensor:
    """(V,) int64 groups, equal where neither the clusters nor the two colours cut."""
    patch = shell_patches(shell.directions, faces, opposite)
    used = torch.zeros(len(patch), dtype=torch.bool, device=patch.device)
    used[patch] = True
    patch = (torch.cumsum(used, 0) - 1)[patch]
    edges = _edges_between(faces, patch)
    edges = edges[edges[:, 0] < edges[:, 1]]
    alike = (shell.directions[edges[:, 0]] * shell.directions[edges[:, 1]]).sum(1).clamp(min=0.1)
    vertex = (opposite >= 0).nonzero()[:, 0]
    first = torch.cat([patch[edges[:, 0]], patch[vertex]])
    second = torch.cat([patch[edges[:, 1]], patch[opposite[vertex]]])
    votes = torch.cat([BESIDE * alike.double(), -torch.ones(len(vertex), dtype=torch.float64, device=patch.device)])
    first, second, votes = _add_up(first, second, votes)
    count = int(patch.max()) + 1
    cluster = mutex_clusters(count, torch.stack([first, second], 1).cpu(), votes.cpu()).to(patch.device)
    return (2 * cluster + two_colours(count, first, second, votes))[patch]


def two_colours(count: int, first: Tensor, second: Tensor, votes: Tensor) -> Tensor:
    """Colours a graph so that the strongest votes hold, by signed agglomeration in rounds.

    In every round each node joins the neighbour that it has the largest sum of votes with, in absolute value: with the same
    colour where the sum is positive, with the other where it is negative. Votes inside a node are settled, satisfied or not.

    Args:
        count: nodes.
        first, second: (E,) int64 ends of the votes; several between the same two nodes add up.
        votes: (E,) float64, positive for the same colour.

    Returns:
        (count,) int64 in {0, 1}, the lowest node of every connected part being 0.
    """
    colour = torch.zeros(count, dtype=torch.int64, device=first.device)
    node = torch.arange(count, device=first.device)
    while True:
        first, second, votes = _add_up(first, second, votes)
        if len(votes) == 0:
            return colour ^ colour[_lowest_member(node, count)][node]
        strongest = _strongest(int(node.max()) + 1, first, second, votes)
        first_s, second_s, differ = first[strongest], second[strongest], votes[strongest] < 0
        parity = _parities(int(node.max()) + 1, first_s, second_s, differ)
        merged = components(int(node.max()) + 1, torch.stack([first_s, second_s], 1))
        colour = colour ^ parity[node]
        votes = torch.where(parity[first] ^ parity[second] == 1, -votes, votes)
        first, second, node = merged[first], merged[second], merged[node]


def _lowest_member(node: Tensor, count: int) -> Tensor:
    """(nodes,) int64 the lowest original node of each merged node."""
    lowest = torch.full((int(node.max()) + 1,), count, device=node.device)
    return lowest.scatter_reduce_(0, node, torch.arange(len(node), device=node.device), "amin")


def _add_up(first: Tensor, second: Tensor, votes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One vote a pair of different nodes, first < second, in order; sums of zero are dropped."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    between = low != high
    fixed = (votes[between] * 2.0**24).round().long()  # integer sums do not depend on the order of atomics
    key, place = torch.unique((low[between] << 32) | high[between], return_inverse=True)
    total = torch.zeros(len(key), dtype=torch.int64, device=key.device).index_add_(0, place, fixed)
    key, total = key[total != 0], total[total != 0]
    return key >> 32, key & 0xFFFFFFFF, total.double() / 2.0**24


def _strongest(count: int, first: Tensor, second: Tensor, votes: Tensor) -> Tensor:
    """Rows of the votes that are the strongest of one of their ends; of equals the first row, so that none form a cycle."""
    rank = torch.argsort(torch.argsort(-votes.abs(), stable=True))
    best = torch.full((count,), len(votes), device=first.device)
    best.scatter_reduce_(0, first, rank, "amin").scatter_reduce_(0, second, rank, "amin")
    return ((best[first] == rank) | (best[second] == rank)).nonzero()[:, 0]


def _parities(count: int, first: Tensor, second: Tensor, differ: Tensor) -> Tensor:
    """(count,) int64 in {0, 1}: 0 at the lowest node of every tree of a forest, 1 apart across edges that differ.

    The double cover of a forest is two copies of it: node v lies in the copy of its lowest node iff their parity is 0.
    """
    flip = torch.where(differ, count, 0)
    cover = torch.cat([torch.stack([first, second + flip], 1), torch.stack([first + count, second + count - flip], 1)])
    copy = components(2 * count, cover)
    return (copy[:count] > copy[count:]).long()
