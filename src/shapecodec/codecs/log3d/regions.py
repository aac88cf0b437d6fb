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

SELF_PAIRED = 0.02  # of a component's vertices, above which it is coloured
FLAT = 0.9  # cosine between the directions along an edge, on both layers, for its ends to be one patch
GROW_ROUNDS = 4  # edges from the patches into the rim, which is about three voxels around at one voxel's distance
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
    size = torch.bincount(component)
    share = torch.bincount(component, among_themselves.double(), minlength=len(size)) / size
    coloured = (share > SELF_PAIRED)[component]
    if not bool(coloured.any()):
        return Regions(component, component, component.new_zeros(0, 2))
    faces = shell.faces[coloured[shell.faces[:, 0].long()]].long()
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    group = _groups(shell, edges, among_themselves & coloured, coloured)
    region = _connected(count, component, group, edges)
    region = _connected(count, component, _without_specks(group, region, edges), edges)
    return Regions(component, region, edges[region[edges[:, 0]] != region[edges[:, 1]]])


def _without_specks(group: Tensor, region: Tensor, edges: Tensor) -> Tensor:
    """Gives the vertices of every small region the group that most of the edges around it lead to (lowest of equals)."""
    small = torch.bincount(region)[region] < SMALLEST
    around = edges[small[edges[:, 0]] & ~small[edges[:, 1]]]
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


def _connected(count: int, component: Tensor, group: Tensor, edges: Tensor) -> Tensor:
    """Connected parts of one group; components that are not cut have no edges here and stay whole."""
    joined = edges[group[edges[:, 0]] == group[edges[:, 1]]]
    whole = torch.ones(count, dtype=torch.bool, device=component.device)
    whole[edges[:, 0]] = False
    anchor = torch.full((int(component.max()) + 1,), count, device=component.device)
    member = whole.nonzero()[:, 0]
    anchor.scatter_reduce_(0, component[member], member, "amin")
    return components(count, torch.cat([joined, torch.stack([anchor[component[member]], member], 1)]))


def _groups(shell: Shell, edges: Tensor, paired: Tensor, coloured: Tensor) -> Tensor:
    """(V,) int64 groups, equal where neither the clusters nor the two colours cut."""
    patch = _patches(shell, edges, paired, coloured)
    directions = shell.directions
    across = patch[edges[:, 0]] != patch[edges[:, 1]]
    beside = edges[across & (edges[:, 0] < edges[:, 1])]
    alike = (directions[beside[:, 0]] * directions[beside[:, 1]]).sum(1).clamp(min=0.1)
    vertex = paired.nonzero()[:, 0]
    first = torch.cat([patch[beside[:, 0]], patch[vertex]])
    second = torch.cat([patch[beside[:, 1]], patch[shell.opposite[vertex]]])
    votes = torch.cat([BESIDE * alike.double(), -torch.ones(len(vertex), dtype=torch.float64, device=patch.device)])
    first, second, votes = _add_up(first, second, votes)
    count = int(patch.max()) + 1
    cluster = mutex_clusters(count, torch.stack([first, second], 1).cpu(), votes.cpu()).to(patch.device)
    return (2 * cluster + two_colours(count, first, second, votes))[patch]


def _patches(shell: Shell, edges: Tensor, paired: Tensor, coloured: Tensor) -> Tensor:
    """(V,) int64 patches: flat parts that have an opposite, grown into the rim; then whatever is left."""
    directions, other = shell.directions, shell.opposite.clamp(min=0)
    start, end = edges.unbind(1)
    alike = (directions[start] * directions[end]).sum(1)
    alike_opposite = (directions[other[start]] * directions[other[end]]).sum(1)
    flat = paired[start] & paired[end] & (alike > FLAT) & (alike_opposite > FLAT)
    patch = components(len(paired), edges[flat])
    label = torch.where(paired, patch, -1)
    for _ in range(GROW_ROUNDS):
        label = _grow(label, edges, alike)
    left = coloured & (label < 0)
    bends = left[start] & left[end] & (alike > 0.5)
    rest = components(len(paired), edges[bends])
    return torch.unique(torch.where(label < 0, rest + len(paired), label), return_inverse=True)[1]


def _grow(label: Tensor, edges: Tensor, alike: Tensor) -> Tensor:
    """Gives every unlabelled vertex the label of its neighbour of the most similar direction (lowest label of equals)."""
    open_edges = (label[edges[:, 0]] < 0) & (label[edges[:, 1]] >= 0)
    vertex, source = edges[open_edges].unbind(1)
    likeness = alike[open_edges]
    best = torch.full((len(label),), -2.0, device=label.device).scatter_reduce_(0, vertex, likeness, "amax")
    chosen = likeness == best[vertex]
    lowest = torch.full_like(label, torch.iinfo(torch.int64).max)
    lowest.scatter_reduce_(0, vertex[chosen], label[source[chosen]], "amin")
    return torch.where((label < 0) & (best > -2.0), lowest, label)


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
    key, place = torch.unique((low[between] << 32) | high[between], return_inverse=True)
    fixed = (votes[between] * 2.0**24).round().long()  # integer sums do not depend on the order of atomics
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
