"""Specification of voxelise in torch, float64: separating axes on pairs of a triangle and a box, coarse boxes first.

Thirteen axes decide whether a triangle and a box share a point: the box's three, which the bounding boxes settle, the
triangle's normal, and the nine cross products of its edges with the box's axes. A triangle's projections on the latter
ten are computed once (`axes`); a box of any size then adds its own centre and radius. All three corners are projected on
every axis, also on the normal: where rounding has tilted an axis, it still separates nothing that overlaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.grid import morton_encode

AXES = 10
SLACK = 1e-9  # voxels: touching counts on every backend, whatever its rounding (1e-12 at 2048^3)
ROUNDING = 1e-14  # times the largest coordinate: the same for triangles that reach far out of the cube

FACES = 1 << 18  # triangles at once
BOXES = 1 << 19  # pairs whose halves are made at once: 8 times as many, 128 MB
DIRECT = 64  # voxels in a triangle's box up to which they are tested at once
PAIRS = 1 << 16  # pairs at once: 26 MB of axes

Tester = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def axes(corners: Tensor) -> Tensor:
    """(F, 10, 5) float64 from corners (F, 3, 3) in voxels: axis, lowest and highest projection with the slack.

    Axes have length 1, or 0 where there is none.
    """
    edges = corners.roll(-1, 1) - corners
    normal = torch.linalg.cross(edges[:, 0], edges[:, 1])[:, None]
    x, y, z = edges.unbind(2)
    zero = torch.zeros_like(x)
    across = [torch.stack(axis, 2) for axis in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    axis = torch.cat([normal, *across], 1)
    axis = axis / axis.norm(dim=2, keepdim=True).clamp_min(1e-300)
    places = torch.einsum("fac,fkc->fak", axis, corners)
    slack = SLACK + ROUNDING * corners.abs().amax((1, 2))[:, None, None]
    return torch.cat([axis, places.amin(2, keepdim=True) - slack, places.amax(2, keepdim=True) + slack], 2)


def touches(table: Tensor, triangle: Tensor, node: Tensor, size: float, reach: float) -> Tensor:
    """(P,) bool: whether triangle[p] and the box of node[p] overlap, by the ten axes.

    Args:
        table: (F, 10, 5) of `axes`.
        triangle: (P,) int64 rows of the table.
        node: (P, 3) int64; node n covers [n, n + 1] * size, in voxels.
        size: voxels an axis.
        reach: voxels by which the box is enlarged.
    """
    found = []
    for part in torch.arange(len(triangle), device=triangle.device).split(PAIRS):
        rows = table[triangle[part]]
        centre = (node[part].double() + 0.5) * size
        place = (rows[:, :, :3] * centre[:, None]).sum(2)
        radius = (size / 2 + reach) * rows[:, :, :3].abs().sum(2)
        found.append(((place + radius >= rows[:, :, 3]) & (place - radius <= rows[:, :, 4])).all(1))
    return torch.cat(found) if found else triangle.new_zeros(0, dtype=torch.bool)


def node_ranges(low: Tensor, high: Tensor, size: Tensor | int, resolution: int, reach: float) -> tuple[Tensor, Tensor]:
    """First and last node (F, 3) int64 an axis whose enlarged box meets the bounding box low, high (F, 3) in voxels.

    Clamped to the cube: the last is below the first where they miss each other.
    """
    first = ((low - reach - SLACK) / size - 1).ceil()
    last = ((high + reach + SLACK) / size).floor()
    most = torch.as_tensor((resolution - 1) // size, device=low.device)
    return first.clamp(min=0).minimum(most + 1.0).long(), last.clamp(min=-1.0).minimum(most).long()


def spread(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """All cells of F index boxes: the box (P,) and the cell (P, 3) of each, int64."""
    shape = (last - first + 1).clamp_min(0)
    count = shape.prod(1)
    owner = torch.repeat_interleave(torch.arange(len(first), device=first.device), count)
    place = torch.arange(len(owner), device=first.device) - (count.cumsum(0) - count)[owner]
    wide = shape[owner]
    plane = wide[:, 1] * wide[:, 2]
    cell = torch.stack([place // plane, place // wide[:, 2] % wide[:, 1], place % wide[:, 2]], 1)
    return owner, first[owner] + cell


def touched_keys(
    vertices: Tensor,
    faces: Tensor,
    resolution: int,
    reach: float,
    test: Tester = touches,
    *,
    faces_at_once: int = FACES,
    boxes_at_once: int = BOXES,
) -> Tensor:
    """(N,) int64 ascending Morton keys; `reach` in voxels, the other arguments as in the package.

    The last two bound the temporaries, whatever the faces: only the result grows with them.
    """
    keys = [morton_encode(faces[:0])]
    for part in faces.split(faces_at_once):
        corners = (vertices[part].double() + 0.5) * resolution
        keys.append(_part_keys(corners, resolution, reach, test, boxes_at_once))
    return torch.unique(torch.cat(keys))


class _Boxes(NamedTuple):
    """Pairs of a triangle and a box of 2^step voxels that wait for their turn.

    Args:
        step: of the boxes' size.
        pairs: how many.
        triangle: (pairs,) int64; or the triangles that begin here, each with its own boxes, which are yet to be spread.
        node: (pairs, 3) int64, or None for triangles that begin.
    """

    step: int
    pairs: int
    triangle: Tensor
    node: Tensor | None


def _part_keys(corners: Tensor, resolution: int, reach: float, test: Tester, at_once: int) -> Tensor:
    """Each triangle begins with boxes as large as its extent, so few of them, and those that it touches are halved.

    A triangle across the cube at 1024^3 thus visits a few million boxes instead of 2^30. One whose box holds few voxels begins
    with these. What is halved joins triangles that begin at that size, so there are hardly more rounds than sizes; where there are
    many boxes, a tile of them is followed down to its voxels before the next, and triangles begin only when their turn comes.
    """
    low, high = corners.amin(1), corners.amax(1)
    waiting = _beginnings(low, high, resolution, reach, at_once)
    table = axes(corners)
    keys = [torch.zeros(0, dtype=torch.int64, device=corners.device)]
    while waiting:
        together = [waiting.pop()]
        step, pairs = together[0].step, together[0].pairs
        while waiting and waiting[-1].step == step and pairs + waiting[-1].pairs <= at_once:
            together.append(waiting.pop())
            pairs += together[-1].pairs
        triangle, node = _joined(together, low, high, resolution, reach)
        if pairs > at_once:
            tiles = zip(triangle.split(at_once), node.split(at_once), strict=True)
            waiting.extend(_Boxes(step, len(tile[0]), *tile) for tile in tiles)
            continue
        keep = test(table, triangle, node, float(1 << step), reach)
        triangle, node = triangle[keep], node[keep]
        if step == 0:
            keys.append(torch.unique(morton_encode(node)))
            continue
        first, last = node_ranges(low[triangle], high[triangle], 1 << (step - 1), resolution, reach)
        owner, node = spread(first.maximum(node * 2), last.minimum(node * 2 + 1))
        waiting.append(_Boxes(step - 1, len(owner), triangle[owner], node))
    return torch.unique(torch.cat(keys))


def _beginnings(low: Tensor, high: Tensor, resolution: int, reach: float, at_once: int) -> list[_Boxes]:
    """What every triangle begins with, in groups of one size and at most `at_once` pairs (or one triangle), large boxes last.

    Boxes are at least as large as twice the reach, too: a triangle meets at most DIRECT of them.
    """
    least = min(max(1.0, 2 * reach), float(resolution))
    level = (high - low).amax(1).clamp(least, float(resolution)).log2().ceil().long()
    first, last = node_ranges(low, high, 1, resolution, reach)
    level = torch.where((last - first + 1).clamp_min(0).prod(1) <= DIRECT, 0, level)
    order = level.argsort(stable=True)
    level = level[order]
    first, last = node_ranges(low[order], high[order], (1 << level)[:, None], resolution, reach)
    pairs = (last - first + 1).clamp_min(0).prod(1)
    ends = pairs.cumsum(0)
    stretch = (ends - pairs) // max(at_once - DIRECT, 1)  # a triangle belongs to the one that its first pair lies in
    group, sizes = torch.unique_consecutive(level << 32 | stretch, return_counts=True)
    after = sizes.cumsum(0)
    counts = ends[after - 1] - (ends - pairs)[after - sizes]
    listed = zip((group >> 32).tolist(), counts.tolist(), order.split(sizes.tolist()), strict=True)
    return [_Boxes(step, count, triangle, None) for step, count, triangle in listed if count]


def _joined(together: list[_Boxes], low: Tensor, high: Tensor, resolution: int, reach: float) -> tuple[Tensor, Tensor]:
    """Triangle (P,) and node (P, 3) of all pairs."""
    triangles, nodes = [], []
    for step, _, triangle, node in together:
        if node is None:
            owner, node = spread(*node_ranges(low[triangle], high[triangle], 1 << step, resolution, reach))
            triangle = triangle[owner]
        triangles.append(triangle)
        nodes.append(node)
    return torch.cat(triangles), torch.cat(nodes)
