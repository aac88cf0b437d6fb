"""The whole order in one launch, a program an item: points in registers, or in buckets of which few are visited a pick.

A pick waits for the one before, so the time is that of a step: count instructions and trips through shared memory.
Tiles are laid out as (register, warp, lane). A step then reduces in registers, in each warp (one instruction for an int32),
and once across warps: `gather` hands the winner of every warp to all of them, in a single store, barrier and load, where
`tl.max` over warps takes two such trips and a scalar, and a maximum with its index four. Non-negative floats order as
their bits do, and taken or absent points are negative.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import MORTON_BITS, morton_encode

RESIDENT = (
    16384  # points of four registers each that one multiprocessor can hold (a tenth of them spills, at the limit)
)
ROWS = 16  # points a thread, while there are warps to share them
WARPS = 16  # at most: with 32, a step's fixed instructions are twice as many and registers half
BUCKETS = 2048  # boxes that a program of 16 warps holds: four a thread
FILL = 128  # points that a warp of the bucketed kernel reads at a time
LAST = tl.constexpr(2147483647)
ABOVE = tl.constexpr(0x7F800001)  # the bits after those of infinity: a bucket not yet visited, whatever its bound


@triton.jit
def _across(tile: tl.tensor, WARPS: tl.constexpr) -> tl.tensor:
    """A value of each warp (WARPS,) for every thread: (WARPS * 32,), equal within a warp."""
    return tl.reshape(tl.broadcast_to(tile[:, None], [WARPS, 32]), [WARPS * 32])


@triton.jit
def _farthest(top: tl.tensor, low: tl.tensor, WARPS: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The largest of `top` and the lowest `low` beside it, for every thread (WARPS * 32,); both (WARPS, 32) int32."""
    high = tl.max(top, 1)
    low = tl.min(tl.where(top == high[:, None], low, LAST), 1)
    both = _across((high.to(tl.int64) << 32) | low.to(tl.int64), WARPS)
    winners = tl.arange(0, WARPS * 32) % WARPS * 33  # of any thread of the warp; 33: each from a bank of its own
    both = tl.reshape(tl.gather(both, winners, 0), [WARPS, 32])
    top = (both >> 32).to(tl.int32)
    high = tl.max(top, 1)
    low = tl.min(tl.where(top == high[:, None], both.to(tl.int32), LAST), 1)
    return _across(high, WARPS), _across(low, WARPS)


@triton.jit
def _append_rest(picks: tl.tensor, made: tl.tensor, count: tl.tensor, size: tl.tensor, THREADS: tl.constexpr) -> None:
    """Rows that are not among the first `made` picks, in order, after them: all coincide with a pick."""
    tl.debug_barrier()  # picks were written by one thread
    first = made
    row = tl.arange(0, THREADS)
    while made < count:
        fresh = row < size
        for k in range(first):
            fresh = fresh & (tl.load(picks + k) != row)
        rank = tl.cumsum(fresh.to(tl.int32), 0)
        place = made + rank - 1
        tl.store(picks + place, row.to(tl.int64), mask=fresh & (place < count))
        made += tl.max(rank, 0)
        row += THREADS


@triton.jit(do_not_specialize=["size", "count"])
def _resident(
    points: tl.tensor, start: tl.tensor, picks: tl.tensor, size: tl.tensor, count: tl.tensor,
    ROWS: tl.constexpr, WARPS: tl.constexpr,
) -> None:  # fmt: skip
    """Points (B, size, 3), start (B,), picks (B, count); size <= ROWS * WARPS * 32."""
    THREADS: tl.constexpr = WARPS * 32
    item = tl.program_id(0).to(tl.int64)
    points += item * size * 3
    picks += item * count
    flat = tl.arange(0, ROWS * THREADS)
    live = flat < size
    x = tl.reshape(tl.load(points + flat * 3, mask=live, other=0.0), [ROWS, WARPS, 32])
    y = tl.reshape(tl.load(points + flat * 3 + 1, mask=live, other=0.0), [ROWS, WARPS, 32])
    z = tl.reshape(tl.load(points + flat * 3 + 2, mask=live, other=0.0), [ROWS, WARPS, 32])
    least = tl.reshape(tl.where(live, float("inf"), -1.0), [ROWS, WARPS, 32])
    row = tl.broadcast_to(tl.arange(0, ROWS)[:, None, None], [ROWS, WARPS, 32])
    thread = tl.arange(0, THREADS)
    place = tl.reshape(thread, [WARPS, 32])
    pick = tl.load(start + item + thread * 0).to(tl.int32)
    tl.store(picks + thread * 0, pick.to(tl.int64), mask=thread == 0)
    made = tl.full([THREADS], 1, tl.int32)
    for k in range(1, count):
        # every thread reads the pick's coordinates: as scalars, they would have to pass through shared memory
        dx = x - tl.reshape(tl.load(points + pick * 3), [1, WARPS, 32])
        dy = y - tl.reshape(tl.load(points + pick * 3 + 1), [1, WARPS, 32])
        dz = z - tl.reshape(tl.load(points + pick * 3 + 2), [1, WARPS, 32])
        least = tl.minimum(least, dx * dx + dy * dy + dz * dz)
        bits = least.to(tl.int32, bitcast=True)
        top = tl.max(bits, 0)
        low = tl.min(tl.where(bits == top[None], row, ROWS), 0)
        far, pick = _farthest(top, low * THREADS + place, WARPS)
        tl.store(picks + k + thread * 0, pick.to(tl.int64), mask=thread == 0)
        made += (far > 0).to(tl.int32)
    _append_rest(picks, tl.max(made, 0), count, size, THREADS)


@triton.jit(do_not_specialize=["size", "count", "buckets", "fills"])
def _bucketed(
    points: tl.tensor, start: tl.tensor, picks: tl.tensor, axes: tl.tensor, rows: tl.tensor, least: tl.tensor,
    boxes: tl.tensor, size: tl.tensor, count: tl.tensor, buckets: tl.tensor, fills: tl.tensor,
    ROWS: tl.constexpr, WARPS: tl.constexpr, FILL: tl.constexpr,
) -> None:  # fmt: skip
    """Axes (B, 3, buckets * fills * FILL), rows and least (B, the same), boxes (B, 6, buckets); see `_in_buckets`."""
    THREADS: tl.constexpr = WARPS * 32
    item = tl.program_id(0).to(tl.int64)
    padded = buckets * fills * FILL
    points += item * size * 3
    picks += item * count
    axes += item * padded * 3
    rows += item * padded
    least += item * padded
    boxes += item * buckets * 6
    flat = tl.arange(0, ROWS * THREADS)
    own = (flat // THREADS) * THREADS + (flat % 32) * WARPS + (flat // 32) % WARPS  # neighbours to different warps
    live = own < buckets
    x0 = tl.reshape(tl.load(boxes + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    y0 = tl.reshape(tl.load(boxes + buckets + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    z0 = tl.reshape(tl.load(boxes + buckets * 2 + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    x1 = tl.reshape(tl.load(boxes + buckets * 3 + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    y1 = tl.reshape(tl.load(boxes + buckets * 4 + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    z1 = tl.reshape(tl.load(boxes + buckets * 5 + own, mask=live, other=0.0), [ROWS, WARPS, 32])
    top = tl.reshape(tl.where(live, ABOVE, -1), [ROWS, WARPS, 32])
    low = tl.full([ROWS, WARPS, 32], LAST, tl.int32)
    own = tl.reshape(own, [ROWS, WARPS, 32])
    thread = tl.arange(0, THREADS)
    pick = tl.load(start + item + thread * 0).to(tl.int32)
    tl.store(picks + thread * 0, pick.to(tl.int64), mask=thread == 0)
    made = tl.full([THREADS], 1, tl.int32)
    part_of = (tl.arange(0, FILL * WARPS) // THREADS) * 32 + tl.arange(0, FILL * WARPS) % 32
    for k in range(1, count):
        qx = tl.reshape(tl.load(points + pick * 3), [1, WARPS, 32])
        qy = tl.reshape(tl.load(points + pick * 3 + 1), [1, WARPS, 32])
        qz = tl.reshape(tl.load(points + pick * 3 + 2), [1, WARPS, 32])
        dx = tl.maximum(tl.maximum(x0 - qx, qx - x1), 0.0)
        dy = tl.maximum(tl.maximum(y0 - qy, qy - y1), 0.0)
        dz = tl.maximum(tl.maximum(z0 - qz, qz - z1), 0.0)
        # rounding keeps order, and the operations are those of a distance: the bound is never above one
        pending = (dx * dx + dy * dy + dz * dz).to(tl.int32, bitcast=True) < top
        trips = tl.max(tl.sum(tl.sum(pending.to(tl.int32), 0), 1), 0)
        for _ in range(trips):
            chosen = tl.min(tl.min(tl.where(pending, own, LAST), 0), 1)
            visited = own == chosen[None, :, None]
            pending = pending & (own != chosen[None, :, None])
            busy = tl.reshape(tl.broadcast_to(chosen[None, :, None], [FILL // 32, WARPS, 32]), [FILL * WARPS])
            some = busy < LAST
            place = tl.where(some, busy, 0) * (fills * FILL) + part_of
            high = tl.full([WARPS], -1, tl.int32)
            first = tl.full([WARPS], LAST, tl.int32)
            for _ in range(fills):
                wx = tl.load(axes + place, mask=some, other=0.0)
                wy = tl.load(axes + padded + place, mask=some, other=0.0)
                wz = tl.load(axes + padded * 2 + place, mask=some, other=0.0)
                old = tl.load(least + place, mask=some, other=-1.0)
                row = tl.load(rows + place, mask=some, other=0)
                wx = tl.reshape(wx, [FILL // 32, WARPS, 32]) - qx
                wy = tl.reshape(wy, [FILL // 32, WARPS, 32]) - qy
                wz = tl.reshape(wz, [FILL // 32, WARPS, 32]) - qz
                new = tl.minimum(tl.reshape(old, [FILL // 32, WARPS, 32]), wx * wx + wy * wy + wz * wz)
                tl.store(least + place, tl.reshape(new, [FILL * WARPS]), mask=some)
                bits = new.to(tl.int32, bitcast=True)
                best = tl.max(tl.max(bits, 0), 1)
                row = tl.reshape(row, [FILL // 32, WARPS, 32])
                at = tl.min(tl.min(tl.where(bits == best[None, :, None], row, LAST), 0), 1)
                first = tl.where(best > high, at, tl.where(best == high, tl.minimum(first, at), first))
                high = tl.maximum(high, best)
                place += FILL
            top = tl.where(visited, high[None, :, None], top)
            low = tl.where(visited, first[None, :, None], low)
        most = tl.max(top, 0)
        far, pick = _farthest(most, tl.min(tl.where(top == most[None], low, LAST), 0), WARPS)
        tl.store(picks + k + thread * 0, pick.to(tl.int64), mask=thread == 0)
        made += (far > 0).to(tl.int32)
    _append_rest(picks, tl.max(made, 0), count, size, THREADS)


def _in_buckets(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Points (B, N, 3) in Morton order, cut into buckets of `fills` times FILL, padded at the end.

    Returns axes (B, 3, buckets * fills * FILL), rows int32 and distances (inf; -1 for padding) of the same length, boxes
    (B, 6, buckets) of low and high corners, and fills.
    """
    items, size, _ = points.shape
    fills = triton.cdiv(size, BUCKETS * FILL)
    buckets = triton.cdiv(size, fills * FILL)
    spare = buckets * fills * FILL - size
    corner = points.amin(1, keepdim=True).double()
    side = (points.amax(1, keepdim=True).double() - corner).amax(2, keepdim=True).clamp_(min=1e-300)
    cells = ((points.double() - corner) / side * ((1 << MORTON_BITS) - 1)).long()
    order = torch.cat([morton_encode(part) for part in cells.flatten(0, 1).split(1 << 22)]).view(items, size).argsort(1)
    axes = points.gather(1, order[..., None].expand(-1, -1, 3)).transpose(1, 2)
    last = axes[:, :, -1:].expand(-1, -1, spare)
    axes = torch.cat([axes, last], 2).contiguous()
    cut = axes.view(items, 3, buckets, -1)
    boxes = torch.cat([cut.amin(3), cut.amax(3)], 1)
    rows = torch.nn.functional.pad(order.int(), (0, spare))
    least = torch.full_like(axes[:, 0], torch.inf)
    least[:, size:] = -1.0
    return axes, rows, least, boxes, fills


def farthest_points(
    points: Tensor, start: Tensor, count: int, *, warps: int | None = None, resident: int = RESIDENT
) -> Tensor:
    """See the public function; points (B, N, 3) float32 contiguous, start (B,) int64 in range.

    For measurements: `warps` a program (a power of two), and the most points that are kept in registers.
    """
    items, size, _ = points.shape
    picks = torch.zeros(items, count, dtype=torch.int64, device=points.device)
    wide = triton.next_power_of_2(size)
    # fused multiply-adds round once where the specification rounds twice
    if size <= resident:
        warps = warps or min(max(wide // (32 * ROWS), 4), WARPS)
        _resident[(items,)](
            points, start, picks, size, count,
            ROWS=max(wide // (32 * warps), 1), WARPS=warps, num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
        return picks
    warps = warps or WARPS
    axes, rows, least, boxes, fills = _in_buckets(points)
    buckets = boxes.shape[2]
    _bucketed[(items,)](
        points, start, picks, axes, rows, least, boxes, size, count, buckets, fills,
        ROWS=max(triton.next_power_of_2(buckets) // (32 * warps), 1), WARPS=warps, FILL=FILL,
        num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return picks
