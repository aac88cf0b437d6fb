"""A box hierarchy without pointers: items in Morton order, eight to a leaf, eight leaves to a group, and so on up.

Packing a sorted list (as in a packed Hilbert R-tree) builds in the time of one sort, and eight boxes side by side fill
one AVX register in float32. Its weak spot is a few huge triangles among many small ones, whose boxes would swell every
ancestor: items are therefore sorted by size class first, so that each class has branches of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

WIDTH = 8  # items in a leaf and children in a group: one AVX register of float32
BOX = 6 * WIDTH  # floats of a group: x, y, z of the eight low corners, then of the eight high corners
SIZE_CLASSES = 4  # extents up to 8, 64, 512 times the median, and above
KEY_BITS = 63


class PackedTree(NamedTuple):
    """A packed hierarchy of n items.

    Args:
        order: (n0 * 8,) int64 item of each leaf slot; the last item fills the slots beyond n.
        boxes: (groups * 48,) float32: for each group of levels 1 and up, its children's boxes; absent children are
            empty boxes (low = inf, high = -inf), which are infinitely far from everything.
        starts: (levels,) int64 first group of each level within `boxes`; level 0 (the leaves) has no boxes of its own.
    """

    order: np.ndarray
    boxes: np.ndarray
    starts: np.ndarray


@njit(cache=True)
def spread_bits(value: np.int64) -> np.int64:
    """Put two zero bits before each of the 20 low bits of a number."""
    x = value
    x = (x | (x << 32)) & 0x1F00000000FFFF
    x = (x | (x << 16)) & 0x1F0000FF0000FF
    x = (x | (x << 8)) & 0x100F00F00F00F00F
    x = (x | (x << 4)) & 0x10C30C30C30C30C3
    return (x | (x << 2)) & 0x1249249249249249


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def _sort_keys(
    low: np.ndarray, high: np.ndarray, corner: np.ndarray, cells: float, bits: int, index_bits: int, median: float
) -> np.ndarray:
    """(n,) int64: size class, then the Morton code of the box's centre, then the item's own number."""
    keys = np.zeros(len(low), np.int64)
    top = float((1 << bits) - 1)
    for i in prange(len(low)):
        code = np.int64(0)
        extent = np.float32(0.0)
        for axis in range(3):
            extent = max(extent, high[i, axis] - low[i, axis])
            centre = (np.float64(low[i, axis]) + np.float64(high[i, axis])) * 0.5
            cell = np.int64(min(max((centre - corner[axis]) * cells, 0.0), top))
            code |= spread_bits(cell) << (2 - axis)
        size = np.int64(extent > 8.0 * median) + np.int64(extent > 64.0 * median) + np.int64(extent > 512.0 * median)
        keys[i] = (((size << (3 * bits)) | code) << index_bits) | i
    return keys


def spatial_order(low: np.ndarray, high: np.ndarray, *, by_size: bool = True) -> np.ndarray:
    """(n,) int64 permutation of boxes (n, 3), (n, 3) that keeps neighbours in space together.

    The item's number sits in the key's low bits: a plain sort of int64 is vectorised in numpy and 5 times faster than
    argsort, and ties need no stable algorithm.
    """
    count = len(low)
    index_bits = max(count - 1, 1).bit_length()
    bits = min(20, (KEY_BITS - 2 - index_bits) // 3)
    corner, far = low.min(0).astype(np.float64), high.max(0).astype(np.float64)
    side = max(float((far - corner).max()), 1e-300)
    sample = slice(None, None, max(count // 4096, 1))
    median = float(np.median((high[sample] - low[sample]).max(1))) if by_size else np.inf
    keys: np.ndarray = _sort_keys(low, high, corner, (1 << bits) / side, bits, index_bits, median)
    keys.sort()
    return keys & ((1 << index_bits) - 1)


@njit(cache=True, parallel=True, nogil=True)
def _leaf_boxes(low: np.ndarray, high: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n0, 3), (n0, 3) of the leaves."""
    leaves = len(order) // WIDTH
    group_low, group_high = np.zeros((leaves, 3), np.float32), np.zeros((leaves, 3), np.float32)
    for leaf in prange(leaves):
        for axis in range(3):
            least, most = np.float32(np.inf), np.float32(-np.inf)
            for slot in range(WIDTH):
                item = order[leaf * WIDTH + slot]
                least, most = min(least, low[item, axis]), max(most, high[item, axis])
            group_low[leaf, axis], group_high[leaf, axis] = least, most
    return group_low, group_high


@njit(cache=True, parallel=True, nogil=True)
def _pack_level(low: np.ndarray, high: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write the boxes of children (n, 3) into groups (m, 6, 8); returns the groups' own boxes (m, 3), (m, 3)."""
    groups = len(boxes)
    group_low, group_high = np.zeros((groups, 3), np.float32), np.zeros((groups, 3), np.float32)
    for group in prange(groups):
        for axis in range(3):
            least, most = np.float32(np.inf), np.float32(-np.inf)
            for slot in range(WIDTH):
                child = group * WIDTH + slot
                if child < len(low):
                    boxes[group, axis, slot], boxes[group, axis + 3, slot] = low[child, axis], high[child, axis]
                    least, most = min(least, low[child, axis]), max(most, high[child, axis])
                else:
                    boxes[group, axis, slot], boxes[group, axis + 3, slot] = np.inf, -np.inf
            group_low[group, axis], group_high[group, axis] = least, most
    return group_low, group_high


def build_tree(low: np.ndarray, high: np.ndarray) -> PackedTree:
    """The hierarchy over boxes low (n, 3), high (n, 3) float32, n >= 1."""
    order = spatial_order(low, high)
    leaves = -(-len(order) // WIDTH)
    order = np.concatenate([order, np.full(leaves * WIDTH - len(order), order[-1])])
    counts = [leaves]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // WIDTH))
    starts = np.cumsum([0, 0, *counts[1:]])[:-1]
    boxes = np.zeros((sum(counts[1:]), 6, WIDTH), np.float32)
    group_low, group_high = _leaf_boxes(low, high, order)
    for level in range(1, len(counts)):
        start = starts[level]
        group_low, group_high = _pack_level(group_low, group_high, boxes[start : start + counts[level]])
    return PackedTree(order, boxes.reshape(-1), starts.astype(np.int64))
