"""`silhouette` in Triton: one launch finds the outlines of both directions, one a direction blends, no transfer to the host.

A lane takes a pair of neighbouring centres and walks by itself. What it finds stays at the pair's place, so blending and the
gradient of values are gathers; only the outlines' vertices, a few thousand, are reached by atomic additions. Sorting the
edges of a mesh that changes in every step would cost more than drawing it: each half-edge is pushed onto the list of its
hash instead, and the walk looks up the few that it crosses.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.errors import BadArgument
from shapecodec.ops.rasterise import Fragments


@triton.jit
def _bucket(a: tl.tensor, b: tl.tensor, last: tl.tensor) -> tl.tensor:
    """The list of an edge; both products stay below 2^63."""
    mixed = (tl.minimum(a, b) * 0x9E3779B1) ^ (tl.maximum(a, b) * 0x85EBCA6B)
    return (mixed ^ (mixed >> 17) ^ (mixed >> 34)) & last


@triton.jit(do_not_specialize=["last", "count"])
def link_edges(
    faces: tl.tensor, heads: tl.tensor, following: tl.tensor, last: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Push half-edge 3 f + k, opposite to corner k of face f, onto its list."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = e < count
    f = e // 3
    k = e % 3
    a = tl.load(faces + f * 3 + (k + 1) % 3, mask=live, other=0)
    b = tl.load(faces + f * 3 + (k + 2) % 3, mask=live, other=0)
    before = tl.atomic_xchg(heads + _bucket(a, b, last), e.to(tl.int32), mask=live, sem="relaxed")
    tl.store(following + e, before, mask=live)


@triton.jit
def _across(
    faces: tl.tensor, heads: tl.tensor, following: tl.tensor, last: tl.tensor, half: tl.tensor, a: tl.tensor,
    b: tl.tensor, live: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """The face that shares edge (a, b) with half-edge `half`; -1 if none does, -2 if several do."""
    e = tl.load(heads + _bucket(a, b, last), mask=live, other=-1).to(tl.int64)
    found = tl.zeros_like(half) - 1
    while tl.max(e, 0) >= 0:
        f = e // 3
        k = e % 3
        p = tl.load(faces + f * 3 + (k + 1) % 3, mask=e >= 0, other=-1)
        q = tl.load(faces + f * 3 + (k + 2) % 3, mask=e >= 0, other=-1)
        same = (e >= 0) & (e != half) & (((p == a) & (q == b)) | ((p == b) & (q == a)))
        found = tl.where(same, tl.where(found == -1, f, -2), found)
        e = tl.load(following + e, mask=(e >= 0) & (found != -2), other=-1).to(tl.int64)
    return found


@triton.jit
def clip_point(clip: tl.tensor, vertex: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """x, y, w."""
    at = clip + vertex * 4
    x = tl.load(at, mask=live, other=0.0)
    y = tl.load(at + 1, mask=live, other=0.0)
    return x, y, tl.load(at + 3, mask=live, other=0.0)


@triton.jit
def pixel_centre(i: tl.tensor, width: tl.tensor, height: tl.tensor, like: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """A pixel's centre in half images."""
    column = (i % width).to(like.dtype.element_ty) + 0.5
    row = ((i // width) % height).to(like.dtype.element_ty) + 0.5
    return column * 2.0 / width - 1.0, 1.0 - row * 2.0 / height


@triton.jit
def _weights(
    x0: tl.tensor, y0: tl.tensor, w0: tl.tensor, x1: tl.tensor, y1: tl.tensor, w1: tl.tensor, x2: tl.tensor,
    y2: tl.tensor, w2: tl.tensor, cx: tl.tensor, cy: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Weights of three corners at a centre, up to a common factor."""
    ax, ay = x0 - cx * w0, y0 - cy * w0
    bx, by = x1 - cx * w1, y1 - cy * w1
    dx, dy = x2 - cx * w2, y2 - cy * w2
    return bx * dy - by * dx, dx * ay - dy * ax, ax * by - ay * bx


@triton.jit
def _share(here: tl.tensor, there: tl.tensor, turned: tl.tensor) -> tl.tensor:
    falls = (here - there) * turned
    return tl.where(falls > 0, here * turned / tl.where(falls > 0, falls, 1.0), float("inf"))


@triton.jit
def _pick(corner: tl.tensor, first: tl.tensor, second: tl.tensor, third: tl.tensor) -> tl.tensor:
    return tl.where(corner == 0, first, tl.where(corner == 1, second, third))


@triton.jit
def _side(la: tl.tensor, lb: tl.tensor, lc: tl.tensor, x: tl.tensor, y: tl.tensor, w: tl.tensor) -> tl.tensor:
    """On which side of a line a point lies; behind the camera it is turned."""
    value = la * x + lb * y + lc * w
    return tl.where(w > 0, value, tl.where(w < 0, -value, 0.0))


@triton.jit(do_not_specialize=["last", "vertices", "width", "height", "pixels", "walk"])
def find_outlines(
    clip: tl.tensor, faces: tl.tensor, face: tl.tensor, depth: tl.tensor, heads: tl.tensor, following: tl.tensor,
    edges: tl.tensor, last: tl.tensor, vertices: tl.tensor, width: tl.tensor, height: tl.tensor, pixels: tl.tensor,
    walk: tl.tensor, TABLE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """For each pair of a pixel with its right (lower) neighbour the ends of the outline's edge, the second -1 if none passes.

    The first is complemented where the neighbour is the nearer one. With TABLE, `heads` is the table of neighbours (F, 3).
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    down = tl.program_id(1)
    has = tl.where(down > 0, (i // width) % height < height - 1, i % width < width - 1) & (i < pixels)
    j = i + tl.where(down > 0, width, 1)
    low = tl.load(face + i, mask=has, other=-1).to(tl.int64)
    high = tl.load(face + j, mask=has, other=-1).to(tl.int64)
    active = (has & (low != high)).to(tl.int32)
    swap = tl.load(depth + j, mask=active > 0, other=0.0) < tl.load(depth + i, mask=active > 0, other=0.0)
    current = tl.where(swap, high, low)
    behind = tl.where(swap, low, high)
    near_x, near_y = pixel_centre(tl.where(swap, j, i), width, height, clip)
    far_x, far_y = pixel_centre(tl.where(swap, i, j), width, height, clip)
    scene = clip + i // (width * height) * vertices * 4
    first = tl.zeros_like(i)
    second = tl.zeros_like(i) - 1
    step = 0
    while (step < walk) & (tl.max(active, 0) > 0):
        on = active > 0
        v0 = tl.load(faces + current * 3, mask=on, other=0)
        v1 = tl.load(faces + current * 3 + 1, mask=on, other=0)
        v2 = tl.load(faces + current * 3 + 2, mask=on, other=0)
        x0, y0, w0 = clip_point(scene, v0, on)
        x1, y1, w1 = clip_point(scene, v1, on)
        x2, y2, w2 = clip_point(scene, v2, on)
        h0, h1, h2 = _weights(x0, y0, w0, x1, y1, w1, x2, y2, w2, near_x, near_y)
        t0, t1, t2 = _weights(x0, y0, w0, x1, y1, w1, x2, y2, w2, far_x, far_y)
        total = h0 + h1 + h2
        turned = tl.where(total > 0, 1.0, tl.where(total < 0, -1.0, 0.0)).to(total.dtype)
        s0, s1, s2 = _share(h0, t0, turned), _share(h1, t1, turned), _share(h2, t2, turned)
        corner = tl.where((s0 <= s1) & (s0 <= s2), 0, tl.where(s1 <= s2, 1, 2))
        on = on & (tl.minimum(s0, tl.minimum(s1, s2)) <= 1)
        a, b = _pick(corner, v1, v2, v0), _pick(corner, v2, v0, v1)
        ax, ay, aw = _pick(corner, x1, x2, x0), _pick(corner, y1, y2, y0), _pick(corner, w1, w2, w0)
        bx, by, bw = _pick(corner, x2, x0, x1), _pick(corner, y2, y0, y1), _pick(corner, w2, w0, w1)
        la, lb, lc = ay * bw - aw * by, aw * bx - ax * bw, ax * by - ay * bx
        if TABLE:
            other = tl.load(heads + current * 3 + corner, mask=on, other=-2).to(tl.int64)
        else:
            other = _across(faces, heads, following, last, current * 3 + corner, a, b, on)
        beyond = on & (other >= 0)
        opposite = tl.load(faces + other * 3, mask=beyond, other=0) + tl.load(
            faces + other * 3 + 1, mask=beyond, other=0
        )
        opposite += tl.load(faces + other * 3 + 2, mask=beyond, other=0) - a - b
        ox, oy, ow = clip_point(scene, opposite, beyond)
        tip_x, tip_y, tip_w = _pick(corner, x0, x1, x2), _pick(corner, y0, y1, y2), _pick(corner, w0, w1, w2)
        folds = beyond & (_side(la, lb, lc, tip_x, tip_y, tip_w) * _side(la, lb, lc, ox, oy, ow) > 0)
        outline = on & ((other == -1) | folds)
        upright = tl.abs(la) * height >= tl.abs(lb) * width
        found = outline & (upright != (down > 0))
        first = tl.where(found, tl.where(swap, -1 - a, a), first)
        second = tl.where(found, b, second)
        active = (beyond & (outline == 0) & (other != behind)).to(tl.int32)
        current = tl.where(active > 0, other, current)
        step += 1
    at = edges + (down * pixels + i) * 2
    tl.store(at, first.to(tl.int32), mask=i < pixels)
    tl.store(at + 1, second.to(tl.int32), mask=i < pixels)


@triton.jit
def _pair(
    clip: tl.tensor, edges: tl.tensor, i: tl.tensor, stride: tl.tensor, vertices: tl.tensor, width: tl.tensor,
    height: tl.tensor, live: tl.tensor,
) -> tuple[tl.tensor, ...]:  # fmt: skip
    """Of the pair of pixels i and i + stride: whether an outline passes, its ends' rows, both seen from the near and from the
    far centre, whether the far one's pixel is reached, and whether the pixel that changes is the second of the pair."""
    a = tl.load(edges + i * 2, mask=live, other=0).to(tl.int64)
    b = tl.load(edges + i * 2 + 1, mask=live, other=-1).to(tl.int64)
    has = b >= 0
    swap = a < 0
    base = i // (width * height) * vertices
    a = base + tl.where(swap, -1 - a, a)
    b = base + b
    ax, ay, aw = clip_point(clip, a, has)
    bx, by, bw = clip_point(clip, b, has)
    near_x, near_y = pixel_centre(tl.where(swap, i + stride, i), width, height, clip)
    far_x, far_y = pixel_centre(tl.where(swap, i, i + stride), width, height, clip)
    first = (ax - near_x * aw) * (by - near_y * bw) - (ay - near_y * aw) * (bx - near_x * bw)
    second = (ax - far_x * aw) * (by - far_y * bw) - (ay - far_y * aw) * (bx - far_x * bw)
    share = first / tl.where(has, first - second, 1.0)
    reaches = share > 0.5
    amount = tl.where(has, tl.where(reaches, share - 0.5, 0.5 - share), 0.0)
    return has, a, b, first, second, amount, reaches, swap != reaches


@triton.jit(do_not_specialize=["stride", "vertices", "width", "height", "pixels", "channels"])
def blend_pixels(
    values: tl.tensor, clip: tl.tensor, edges: tl.tensor, out: tl.tensor, stride: tl.tensor, vertices: tl.tensor,
    width: tl.tensor, height: tl.tensor, pixels: tl.tensor, channels: tl.tensor, WIDE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Each pixel takes its share from the neighbours whose outlines reach into it."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, WIDE)[None, :]
    live = i < pixels
    _, _, _, _, _, before, _, onward = _pair(
        clip, edges, i - stride, stride, vertices, width, height, live & (i >= stride)
    )
    before = tl.where(onward, before, 0.0).to(values.dtype.element_ty)
    _, _, _, _, _, after, _, onward = _pair(clip, edges, i, stride, vertices, width, height, live)
    after = tl.where(onward, 0.0, after).to(values.dtype.element_ty)
    some = live & (c < channels)
    at = values + i * channels + c
    own = tl.load(at, mask=some, other=0.0)
    value = own + before * (tl.load(at - stride * channels, mask=some & (before != 0), other=0.0) - own)
    value += after * (tl.load(at + stride * channels, mask=some & (after != 0), other=0.0) - own)
    tl.store(out + i * channels + c, value, mask=some)


@triton.jit(do_not_specialize=["stride", "vertices", "width", "height", "pixels", "channels"])
def blend_gradients(
    values: tl.tensor, clip: tl.tensor, edges: tl.tensor, grad: tl.tensor, grad_values: tl.tensor, grad_clip: tl.tensor,
    stride: tl.tensor, vertices: tl.tensor, width: tl.tensor, height: tl.tensor, pixels: tl.tensor, channels: tl.tensor,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of each pixel's values, gathered, and of the ends of the edge between it and the next, added atomically."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, WIDE)[None, :]
    live = i < pixels
    some = live & (c < channels)
    T: tl.constexpr = values.dtype.element_ty
    _, _, _, _, _, before, _, onward = _pair(
        clip, edges, i - stride, stride, vertices, width, height, live & (i >= stride)
    )
    has, a, b, first, second, after, reaches, forward = _pair(clip, edges, i, stride, vertices, width, height, live)
    at = i * channels + c
    up, down = at - stride * channels, at + stride * channels
    before_wide, after_wide = before.to(T), after.to(T)
    own = tl.load(grad + at, mask=some, other=0.0)
    next_grad = tl.load(grad + down, mask=some & has, other=0.0)
    slope = own * (1 - tl.where(onward, before_wide, 0.0) - tl.where(forward, 0.0, after_wide))
    taken = some & (before != 0) & (onward == 0)
    slope += tl.where(taken, before_wide * tl.load(grad + up, mask=taken, other=0.0), 0.0)
    slope += tl.where(forward, after_wide * next_grad, 0.0)
    tl.store(grad_values + at, slope, mask=some)

    jump = tl.load(values + down, mask=some & has, other=0.0) - tl.load(values + at, mask=some & has, other=0.0)
    moved = tl.sum(jump * tl.where(forward, -next_grad, own), axis=1)[:, None].to(first.dtype)
    moved = tl.where(reaches, moved, -moved)
    gap = tl.where(has, first - second, 1.0)
    of_first, of_second = -moved * second / (gap * gap), moved * first / (gap * gap)
    swap = reaches != forward
    near_x, near_y = pixel_centre(tl.where(swap, i + stride, i), width, height, clip)
    far_x, far_y = pixel_centre(tl.where(swap, i, i + stride), width, height, clip)
    ax, ay, aw = clip_point(clip, a, has)
    bx, by, bw = clip_point(clip, b, has)
    near, far = of_first * (by - near_y * bw), of_second * (by - far_y * bw)
    near_low, far_low = -of_first * (bx - near_x * bw), -of_second * (bx - far_x * bw)
    row = grad_clip + a * 4
    tl.atomic_add(row, near + far, mask=has, sem="relaxed")
    tl.atomic_add(row + 1, near_low + far_low, mask=has, sem="relaxed")
    turn = near_x * near + near_y * near_low + far_x * far + far_y * far_low
    tl.atomic_add(row + 3, -turn, mask=has, sem="relaxed")
    near, far = -of_first * (ay - near_y * aw), -of_second * (ay - far_y * aw)
    near_low, far_low = of_first * (ax - near_x * aw), of_second * (ax - far_x * aw)
    row = grad_clip + b * 4
    tl.atomic_add(row, near + far, mask=has, sem="relaxed")
    tl.atomic_add(row + 1, near_low + far_low, mask=has, sem="relaxed")
    turn = near_x * near + near_y * near_low + far_x * far + far_y * far_low
    tl.atomic_add(row + 3, -turn, mask=has, sem="relaxed")


def programs_for(count: int, values: Tensor, block: int) -> tuple[int, int]:
    """How many programs of how many lanes; larger ones under the interpreter, where the number of programs is what costs."""
    block = block if values.is_cuda else 1024
    return triton.cdiv(count, block), block


def half_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Lists of half-edges by hash: heads (a power of two) and following (3 F), int32, -1 at the end."""
    count = faces.numel()
    if count >= 1 << 31:
        raise BadArgument(f"{len(faces):,} faces; at most {(1 << 31) // 3:,}.", where="blended")
    heads = torch.full((1 << max(count // 2, 1).bit_length(),), -1, dtype=torch.int32, device=faces.device)
    following = torch.empty(count, dtype=torch.int32, device=faces.device)
    programs, block = programs_for(count, faces, 1024)
    link_edges[(programs,)](faces, heads, following, len(heads) - 1, count, BLOCK=block)
    return heads, following


def outlines(clip: Tensor, faces: Tensor, seen: Fragments, neighbours: Tensor | None, walk: int) -> Tensor:
    """(2, B, H, W, 2) int32, see `find_outlines`: to the right, then below."""
    batch, height, width = seen.face.shape
    pixels = batch * height * width
    edges = torch.empty((2, batch, height, width, 2), dtype=torch.int32, device=clip.device)
    heads, following = half_edges(faces) if neighbours is None else (neighbours.contiguous(), neighbours)
    programs, block = programs_for(pixels, clip, 32)
    find_outlines[(programs, 2)](
        clip, faces, seen.face, seen.depth, heads, following, edges, len(heads) - 1, clip.shape[1], width, height, pixels,
        walk, TABLE=neighbours is not None, BLOCK=block, num_warps=1,
    )  # fmt: skip
    return edges


class Blended(torch.autograd.Function):
    """A picture (B, H, W, C) with the outlines of `outlines` blended, rows first."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, clip: Tensor, edges: Tensor) -> Tensor:
        """Both contiguous."""
        batch, height, width, channels = picture.shape
        pixels, wide = batch * height * width, triton.next_power_of_2(max(channels, 1))
        stages = [picture]
        programs, block = programs_for(pixels, picture, max(1024 // wide, 16))
        for direction, stride in enumerate((1, width)):
            stages.append(torch.empty_like(picture))
            blend_pixels[(programs,)](
                stages[-2], clip, edges[direction], stages[-1], stride, clip.shape[1], width, height, pixels, channels,
                WIDE=wide, BLOCK=block,
            )  # fmt: skip
        ctx.save_for_backward(picture, stages[1], clip, edges)
        return stages[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Columns first."""
        picture, between, clip, edges = ctx.saved_tensors
        batch, height, width, channels = picture.shape
        pixels, wide = batch * height * width, triton.next_power_of_2(max(channels, 1))
        grad, grad_clip = grads[0].contiguous(), torch.zeros_like(clip)
        programs, block = programs_for(pixels, picture, max(1024 // wide, 16))
        for direction, stride, values in ((1, width, between), (0, 1, picture)):
            grad_values = torch.empty_like(picture)
            blend_gradients[(programs,)](
                values, clip, edges[direction], grad, grad_values, grad_clip, stride, clip.shape[1], width, height, pixels,
                channels, WIDE=wide, BLOCK=block,
            )  # fmt: skip
            grad = grad_values
        return grad, grad_clip, None


def blended(
    picture: Tensor, clip: Tensor, faces: Tensor, seen: Fragments, neighbours: Tensor | None, walk: int
) -> Tensor:
    """As `differentiable.blended`."""
    clip, picture = clip.contiguous(), picture.contiguous()
    if picture.numel() == 0 or len(faces) == 0:
        return picture
    edges = outlines(clip.detach(), faces.contiguous(), seen, neighbours, walk)
    out: Tensor = Blended.apply(picture, clip, edges)
    return out
