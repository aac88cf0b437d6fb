"""What a pixel sees, in Triton: one launch forward and one backward for weights, for values, and for whole pictures.

A lane a pixel recomputes its face's corners in both directions; nothing is kept between them but the picture's own inputs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.render.triton.outlines import clip_point, pixel_centre, programs_for


@triton.jit
def corner_rows(faces: tl.tensor, f: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Rows of a face's three corners."""
    at = faces + f * 3
    a = tl.load(at, mask=live, other=0)
    b = tl.load(at + 1, mask=live, other=0)
    return a, b, tl.load(at + 2, mask=live, other=0)


@triton.jit
def seen_from(
    clip: tl.tensor, vertex: tl.tensor, cx: tl.tensor, cy: tl.tensor, live: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """A vertex from a pixel's centre, times w."""
    x, y, w = clip_point(clip, vertex, live)
    return x - cx * w, y - cy * w


@triton.jit
def weights_of(
    ax: tl.tensor, ay: tl.tensor, bx: tl.tensor, by: tl.tensor, cx: tl.tensor, cy: tl.tensor, live: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Weights of three corners seen from a centre, twice the area with its sign, and one over the sum of what was kept."""
    u = bx * cy - by * cx
    v = cx * ay - cy * ax
    w = ax * by - ay * bx
    total = u + v + w
    facing = tl.where(total < 0, -1.0, 1.0).to(total.dtype)
    flat = (total == 0) | (live == 0)
    u = tl.where(flat, 1.0, tl.maximum(u * facing, 0.0))
    v = tl.where(flat, 1.0, tl.maximum(v * facing, 0.0))
    w = tl.where(flat, 1.0, tl.maximum(w * facing, 0.0))
    scale = 1.0 / (u + v + w)
    return u * scale, v * scale, w * scale, total, tl.where(flat, 0.0, scale * facing)


@triton.jit
def weight_gradients(
    ax: tl.tensor, ay: tl.tensor, bx: tl.tensor, by: tl.tensor, cx: tl.tensor, cy: tl.tensor, u: tl.tensor, v: tl.tensor,
    w: tl.tensor, scale: tl.tensor, gu: tl.tensor, gv: tl.tensor, gw: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Slopes of the three corners seen from the centre, of slopes of the weights; weights held at 0 have none."""
    mean = gu * u + gv * v + gw * w
    turn = tl.where(scale < 0, -1.0, 1.0).to(scale.dtype)
    gu = tl.where((bx * cy - by * cx) * turn >= 0, (gu - mean) * scale, 0.0)
    gv = tl.where((cx * ay - cy * ax) * turn >= 0, (gv - mean) * scale, 0.0)
    gw = tl.where((ax * by - ay * bx) * turn >= 0, (gw - mean) * scale, 0.0)
    return (
        gw * by - gv * cy,
        gv * cx - gw * bx,
        gu * cy - gw * ay,
        gw * ax - gu * cx,
        gv * ay - gu * by,
        gu * bx - gv * ax,
    )


@triton.jit(do_not_specialize=["vertices", "width", "height", "pixels"])
def pixel_weights(
    clip: tl.tensor, faces: tl.tensor, face: tl.tensor, out: tl.tensor, front: tl.tensor, vertices: tl.tensor,
    width: tl.tensor, height: tl.tensor, pixels: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """See `corner_weights`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    a, b, c = corner_rows(faces, f, live)
    scene = clip + i // (width * height) * vertices * 4
    x, y = pixel_centre(i, width, height, clip)
    ax, ay = seen_from(scene, a, x, y, live)
    bx, by = seen_from(scene, b, x, y, live)
    cx, cy = seen_from(scene, c, x, y, live)
    u, v, w, total, _ = weights_of(ax, ay, bx, by, cx, cy, live)
    tl.store(out + i * 3, tl.where(live, u, 0.0), mask=i < pixels)
    tl.store(out + i * 3 + 1, tl.where(live, v, 0.0), mask=i < pixels)
    tl.store(out + i * 3 + 2, tl.where(live, w, 0.0), mask=i < pixels)
    tl.store(front + i, live & (total > 0), mask=i < pixels)


@triton.jit
def _add_clip(
    grad: tl.tensor, row: tl.tensor, gx: tl.tensor, gy: tl.tensor, x: tl.tensor, y: tl.tensor, live: tl.tensor
) -> None:
    tl.atomic_add(grad + row * 4, gx, mask=live, sem="relaxed")
    tl.atomic_add(grad + row * 4 + 1, gy, mask=live, sem="relaxed")
    tl.atomic_add(grad + row * 4 + 3, -x * gx - y * gy, mask=live, sem="relaxed")


@triton.jit(do_not_specialize=["vertices", "width", "height", "pixels"])
def pixel_weight_gradients(
    clip: tl.tensor, faces: tl.tensor, face: tl.tensor, grad: tl.tensor, grad_clip: tl.tensor, vertices: tl.tensor,
    width: tl.tensor, height: tl.tensor, pixels: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Slopes of clip coordinates, added atomically."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    a, b, c = corner_rows(faces, f, live)
    first = i // (width * height) * vertices
    x, y = pixel_centre(i, width, height, clip)
    ax, ay = seen_from(clip, first + a, x, y, live)
    bx, by = seen_from(clip, first + b, x, y, live)
    cx, cy = seen_from(clip, first + c, x, y, live)
    u, v, w, _, scale = weights_of(ax, ay, bx, by, cx, cy, live)
    gu = tl.load(grad + i * 3, mask=live, other=0.0)
    gv = tl.load(grad + i * 3 + 1, mask=live, other=0.0)
    gw = tl.load(grad + i * 3 + 2, mask=live, other=0.0)
    gax, gay, gbx, gby, gcx, gcy = weight_gradients(ax, ay, bx, by, cx, cy, u, v, w, scale, gu, gv, gw)
    _add_clip(grad_clip, first + a, gax, gay, x, y, live)
    _add_clip(grad_clip, first + b, gbx, gby, x, y, live)
    _add_clip(grad_clip, first + c, gcx, gcy, x, y, live)


@triton.jit(do_not_specialize=["stride", "area", "pixels", "channels"])
def pixel_values(
    values: tl.tensor, faces: tl.tensor, face: tl.tensor, weights: tl.tensor, out: tl.tensor, stride: tl.tensor,
    area: tl.tensor, pixels: tl.tensor, channels: tl.tensor, WIDE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """See `interpolate`; `stride` is how far apart the views' values are, 0 for common ones."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    k = tl.arange(0, WIDE)[None, :]
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    some = live & (k < channels)
    a, b, c = corner_rows(faces, f, live)
    at = values + i // area * stride + k
    value = tl.load(weights + i * 3, mask=live, other=0.0) * tl.load(at + a * channels, mask=some, other=0.0)
    value += tl.load(weights + i * 3 + 1, mask=live, other=0.0) * tl.load(at + b * channels, mask=some, other=0.0)
    value += tl.load(weights + i * 3 + 2, mask=live, other=0.0) * tl.load(at + c * channels, mask=some, other=0.0)
    tl.store(out + i * channels + k, value, mask=(i < pixels) & (k < channels))


@triton.jit(do_not_specialize=["stride", "area", "pixels", "channels"])
def pixel_value_gradients(
    values: tl.tensor, faces: tl.tensor, face: tl.tensor, weights: tl.tensor, grad: tl.tensor, grad_values: tl.tensor,
    grad_weights: tl.tensor, stride: tl.tensor, area: tl.tensor, pixels: tl.tensor, channels: tl.tensor,
    VALUES: tl.constexpr, WEIGHTS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Slopes of the weights, and of the values, added atomically."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    k = tl.arange(0, WIDE)[None, :]
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    some = live & (k < channels)
    slope = tl.load(grad + i * channels + k, mask=some, other=0.0)
    a, b, c = corner_rows(faces, f, live)
    offset = i // area * stride + k
    if WEIGHTS:
        at = values + offset
        gu = tl.sum(slope * tl.load(at + a * channels, mask=some, other=0.0), axis=1)[:, None]
        gv = tl.sum(slope * tl.load(at + b * channels, mask=some, other=0.0), axis=1)[:, None]
        gw = tl.sum(slope * tl.load(at + c * channels, mask=some, other=0.0), axis=1)[:, None]
        tl.store(grad_weights + i * 3, gu, mask=i < pixels)
        tl.store(grad_weights + i * 3 + 1, gv, mask=i < pixels)
        tl.store(grad_weights + i * 3 + 2, gw, mask=i < pixels)
    if VALUES:
        at = grad_values + offset
        u = tl.load(weights + i * 3, mask=live, other=0.0)
        v = tl.load(weights + i * 3 + 1, mask=live, other=0.0)
        w = tl.load(weights + i * 3 + 2, mask=live, other=0.0)
        tl.atomic_add(at + a * channels, u * slope, mask=some, sem="relaxed")
        tl.atomic_add(at + b * channels, v * slope, mask=some, sem="relaxed")
        tl.atomic_add(at + c * channels, w * slope, mask=some, sem="relaxed")


class CornerWeights(torch.autograd.Function):
    """Weights (B, H, W, 3) and front (B, H, W), see `differentiable.corner_weights`; all contiguous."""

    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """F is at least 1."""
        weights = clip.new_empty((*face.shape, 3))
        front = torch.empty(face.shape, dtype=torch.bool, device=face.device)
        programs, block = programs_for(face.numel(), clip, 128)
        shape = clip.shape[1], face.shape[2], face.shape[1], face.numel()
        pixel_weights[(programs,)](clip, faces, face, weights, front, *shape, BLOCK=block)
        ctx.save_for_backward(clip, faces, face)
        ctx.mark_non_differentiable(front)
        return weights, front

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The slope of clip."""
        clip, faces, face = ctx.saved_tensors
        grad_clip = torch.zeros_like(clip)
        programs, block = programs_for(face.numel(), clip, 128)
        shape = clip.shape[1], face.shape[2], face.shape[1], face.numel()
        pixel_weight_gradients[(programs,)](clip, faces, face, grads[0].contiguous(), grad_clip, *shape, BLOCK=block)
        return grad_clip, None, None


class Interpolated(torch.autograd.Function):
    """Values (B, H, W, C) at the pixels, see `differentiable.interpolate`; all contiguous."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, faces: Tensor, face: Tensor) -> Tensor:
        """Values (V, C) or (B, V, C)."""
        channels = values.shape[-1]
        out = values.new_empty((*face.shape, channels))
        wide = triton.next_power_of_2(max(channels, 1))
        programs, block = programs_for(face.numel(), values, max(1024 // wide, 16))
        ctx.launch = (programs,), wide, block
        ctx.shape = values[0].numel() * (values.ndim == 3), face[0].numel(), face.numel(), channels
        pixel_values[ctx.launch[0]](values, faces, face, weights, out, *ctx.shape, WIDE=wide, BLOCK=block)
        ctx.save_for_backward(values, weights, faces, face)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of values and weights."""
        values, weights, faces, face = ctx.saved_tensors
        of_values, of_weights = ctx.needs_input_grad[:2]
        grad_values = torch.zeros_like(values) if of_values else values
        grad_weights = torch.empty_like(weights) if of_weights else weights
        programs, wide, block = ctx.launch
        pixel_value_gradients[programs](
            values, faces, face, weights, grads[0].contiguous(), grad_values, grad_weights, *ctx.shape,
            VALUES=of_values, WEIGHTS=of_weights, WIDE=wide, BLOCK=block,
        )  # fmt: skip
        return grad_values if of_values else None, grad_weights if of_weights else None, None, None
