"""What the kernels of the extraction share: tiles of voxels by edges, and sums over the edges of each dual vertex.

A tile is BLOCK voxels by 16 edges, of which 12 exist. Values of dual vertices are kept at all edges of theirs: sums run
over the 16 columns in a fixed order, and nothing is indexed by a number that only the device knows.

Of each voxel two words are kept. Its code: bits 0 to 7 the case that its polygons follow, 8 to 11 the dual vertices that a
quad uses, 12 to 14 the quads that it owns: those around the edges that leave its corner 0 along x, y and z. Its end:
inclusive sums over voxels of vertices (low 32 bits) and of quads (high 32 bits).
"""

import triton
import triton.language as tl

from shapecodec.ops.flex_surface.reference import LEAST_GAP

_LEAST = tl.constexpr(LEAST_GAP)
_LOW = tl.constexpr(0xFFFFFFFF)


@triton.jit
def edge_ends(e: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The low and the high corner of edges 4 axis + 2 u + v."""
    axis = e // 4
    u = (e // 2) % 2
    v = e % 2
    low = tl.where(axis == 0, 2 * u + v, tl.where(axis == 1, 4 * u + v, 4 * u + 2 * v))
    return low, low + tl.where(axis == 0, 4, tl.where(axis == 1, 2, 1))


@triton.jit
def tap_steps(axis: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """What a step on the first and on the second of the other two axes adds to a neighbour's tap."""
    return tl.where(axis == 0, 3, 9), tl.where(axis == 2, 3, 1)


@triton.jit
def inside_case(sdf: tl.tensor, index: tl.tensor, n: tl.tensor, live: tl.tensor) -> tl.tensor:
    """Bit s says that corner s of voxel n (BLOCK,) is inside."""
    s = tl.arange(0, 8)[None, :]
    row = tl.load(index + n[:, None] * 8 + s, mask=live[:, None], other=0)
    value = tl.load(sdf + row, mask=live[:, None], other=0.0)
    return tl.sum((value < 0).to(tl.int32) << s, axis=1)


@triton.jit
def ones(bits: tl.tensor) -> tl.tensor:
    """How many of the four lowest bits are set."""
    return (bits & 1) + ((bits >> 1) & 1) + ((bits >> 2) & 1) + ((bits >> 3) & 1)


@triton.jit
def vertex_row(code: tl.tensor, end: tl.tensor, group: tl.tensor) -> tl.tensor:
    """Row of a kept dual vertex of a voxel."""
    kept = (code >> 8) & 15
    return (end & _LOW) - ones(kept) + ones(kept & ((1 << group) - 1))


@triton.jit
def quad_row(code: tl.tensor, end: tl.tensor, axis: tl.tensor) -> tl.tensor:
    """Row of the quad that a voxel owns around its edge on an axis."""
    owned = (code >> 12) & 7
    return (end >> 32) - ones(owned) + ones(owned & ((1 << axis) - 1))


@triton.jit
def corner_values(
    index: tl.tensor, sdf: tl.tensor, deformation: tl.tensor, alpha: tl.tensor, n: tl.tensor, s: tl.tensor, live: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Value, weight and place, from the voxel's origin in voxels, of its corner s."""
    row = tl.load(index + n * 8 + s, mask=live, other=0)
    value = tl.load(sdf + row, mask=live, other=0.0)
    weight = tl.load(alpha + n * 8 + s, mask=live, other=1.0)
    x = tl.load(deformation + row * 3, mask=live, other=0.0) + s // 4
    y = tl.load(deformation + row * 3 + 1, mask=live, other=0.0) + (s // 2) % 2
    z = tl.load(deformation + row * 3 + 2, mask=live, other=0.0) + s % 2
    return value, weight, x, y, z


@triton.jit
def wide_gap(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """low - high, kept away from 0 as in the reference."""
    gap = low - high
    return tl.where(gap < 0, tl.minimum(gap, -_LEAST), tl.maximum(gap, _LEAST))


@triton.jit
def share_gradient(low: tl.tensor, high: tl.tensor, slope: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """What a slope of low / wide_gap(low, high) is for low and for high."""
    gap = wide_gap(low, high)
    moved = tl.abs(low - high) >= _LEAST
    falling = tl.where(moved, slope * low / (gap * gap), 0.0)
    return slope / gap - falling, falling


@triton.jit
def group_totals(values: tl.tensor, group: tl.tensor) -> tl.tensor:
    """At every edge the sum of values (BLOCK, 16) over its dual vertex's edges; 0 where the edge is not cut."""
    total = tl.zeros_like(values)
    for g in tl.static_range(4):
        mine = group == g
        total = tl.where(mine, tl.sum(tl.where(mine, values, 0.0), axis=1)[:, None], total)
    return total
