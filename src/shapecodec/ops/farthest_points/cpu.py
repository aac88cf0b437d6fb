"""Farthest points on a CPU: buckets of neighbours with boxes, skipped where the new point is too far to change anything.

A pick lowers distances only near itself, so of 1,600 buckets (100,000 points) a handful is visited, and a step costs one
pass over boxes. Items of a batch are on threads; results do not depend on their number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from shapecodec.ops.closest_point.tree import KEY_BITS, spread_bits

BUCKET = 64  # points: at 100k, half of a step is boxes and half is points


@njit(cache=True, nogil=True)
def _morton_keys(points: np.ndarray, corner: np.ndarray, scale: float, index_bits: int) -> np.ndarray:
    """(N,) int64: the Morton code of a point's cell, then its row, so that a plain sort orders rows."""
    keys = np.zeros(len(points), np.int64)
    for i in range(len(points)):
        for axis in range(3):
            keys[i] |= spread_bits(np.int64((points[i, axis] - corner[axis]) * scale)) << (2 - axis)
        keys[i] = (keys[i] << index_bits) | i
    return keys


@njit(cache=True, nogil=True)
def _bucket_boxes(axes: np.ndarray, size: int) -> np.ndarray:
    """(6, buckets) low and high corners of axes (3, size), BUCKET points each."""
    buckets = (size + BUCKET - 1) // BUCKET
    boxes = np.zeros((6, buckets), np.float32)
    for axis in range(3):
        for b in range(buckets):
            part = axes[axis, b * BUCKET : min((b + 1) * BUCKET, size)]
            boxes[axis, b], boxes[axis + 3, b] = part.min(), part.max()
    return boxes


@njit(cache=True, nogil=True)
def _bounds(x: np.float32, y: np.float32, z: np.float32, boxes: np.ndarray, bound: np.ndarray) -> None:
    """Least squared distance from a point to each box.

    The operations are those of a distance, and rounding keeps order: no computed distance in the box is below its bound.
    """
    zero = np.float32(0.0)
    for b in range(len(bound)):
        dx = max(max(boxes[0, b] - x, x - boxes[3, b]), zero)
        dy = max(max(boxes[1, b] - y, y - boxes[4, b]), zero)
        dz = max(max(boxes[2, b] - z, z - boxes[5, b]), zero)
        bound[b] = dx * dx + dy * dy + dz * dz


@njit(cache=True, nogil=True)
def _visit(
    x: np.float32, y: np.float32, z: np.float32, axes: np.ndarray, least: np.ndarray, bits: np.ndarray
) -> tuple[np.int32, int]:
    """Lower a bucket's distances; returns the bits of the largest and its place. `bits` is `least` seen as int32."""
    for i in range(len(least)):
        dx, dy, dz = axes[0, i] - x, axes[1, i] - y, axes[2, i] - z
        square = dx * dx + dy * dy + dz * dz
        least[i] = square if square < least[i] else least[i]
    top = bits[0]
    for i in range(len(bits)):  # int32: a maximum of floats is not vectorised
        top = max(top, bits[i])
    place = 0
    while bits[place] != top:
        place += 1
    return top, place


@njit(cache=True, nogil=True)
def _order(axes: np.ndarray, rows: np.ndarray, place: int, count: int, picks: np.ndarray) -> None:
    """Fill picks (count,); axes (3, N) in buckets, rows (N,) ascending within each; `place` of the first pick."""
    size = len(rows)
    boxes = _bucket_boxes(axes, size)
    buckets = boxes.shape[1]
    bound, top = np.zeros(buckets, np.float32), np.zeros(buckets, np.float32)
    top[:] = np.inf
    top_bits = top.view(np.int32)
    best = np.zeros(buckets, np.int64)
    least = np.zeros(size, np.float32)
    least[:] = np.inf
    least_bits = least.view(np.int32)
    for k in range(count):
        picks[k] = rows[place]
        if k + 1 == count:
            break
        x, y, z = axes[0, place], axes[1, place], axes[2, place]
        least[place] = -1.0  # taken: below every distance, and minima keep it there
        _bounds(x, y, z, boxes, bound)
        bound[place // BUCKET] = -1.0  # its own bucket has lost its farthest point, whatever the distances
        for b in range(buckets):
            if bound[b] < top[b]:
                i, j = b * BUCKET, min((b + 1) * BUCKET, size)
                top_bits[b], best[b] = _visit(x, y, z, axes[:, i:j], least[i:j], least_bits[i:j])
        high = top_bits[0]
        for b in range(buckets):
            high = max(high, top_bits[b])
        place, row = -1, size
        for b in range(buckets):
            if top_bits[b] == high and rows[b * BUCKET + best[b]] < row:
                place = b * BUCKET + best[b]
                row = rows[place]


def _in_buckets(points: np.ndarray) -> np.ndarray:
    """(N,) int64 rows of points (N, 3) in Morton order, ascending within each bucket.

    `spatial_order` sorts one large array on all cores; here every core has an array of its own.
    """
    corner = points.min(0).astype(np.float64)
    index_bits = max(len(points) - 1, 1).bit_length()
    cells = (1 << min(20, (KEY_BITS - index_bits) // 3)) - 1
    keys = _morton_keys(points, corner, cells / max(float((points.max(0) - corner).max()), 1e-300), index_bits)
    keys.sort()
    order = keys & ((1 << index_bits) - 1)
    full = len(order) // BUCKET * BUCKET
    rows: np.ndarray = np.concatenate([np.sort(order[:full].reshape(-1, BUCKET), 1).reshape(-1), np.sort(order[full:])])
    return rows


def _one(points: np.ndarray, start: int, picks: np.ndarray) -> None:
    rows = _in_buckets(points)
    _order(np.ascontiguousarray(points[rows].T), rows, int(np.flatnonzero(rows == start)[0]), len(picks), picks)


def farthest_points(points: Tensor, start: Tensor, count: int) -> Tensor:
    """See the public function; points (B, N, 3) float32 contiguous, start (B,) int64 in range."""
    picks = torch.zeros(len(points), count, dtype=torch.int64)
    with ThreadPoolExecutor(max(min(len(points), torch.get_num_threads()), 1)) as pool:
        list(pool.map(_one, points.numpy(), start.tolist(), picks.numpy()))
    return picks
