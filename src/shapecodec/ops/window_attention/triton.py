"""Attention within windows in Triton: rows are read and written through the plan's order: no gathered or padded copies.

FlashAttention's recurrences (Dao 2023, algorithms 1 and 2) on windows. The backward pass takes two kernels, one over
queries and one over keys, instead of atomic additions: results repeat.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.grid import WindowPlan

BLOCK = 64  # rows of a tile; windows of a surface hold 50 to 130 rows


@triton.jit
def _load_rows(base: tl.tensor, rows: tl.tensor, inside: tl.tensor, stride: tl.tensor, D: tl.constexpr) -> tl.tensor:
    """(ROWS, D) of one head; rows outside are zero. Rows are int64: rows * stride passes 2^31 from 2.8M rows on."""
    return tl.load(base + rows[:, None] * stride + tl.arange(0, D)[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _forward_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    stride_q: tl.tensor,
    stride_k: tl.tensor,
    stride_v: tl.tensor,
    heads: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One tile of queries of one window and head; `lse` keeps log2 of the denominator, `scale` holds log2(e)."""
    window = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    first = tl.load(offsets + window)
    last = tl.load(offsets + window + 1)
    start = first + tl.program_id(1) * ROWS
    if start < last:
        place = start + tl.arange(0, ROWS)
        live = place < last
        rows = tl.load(order + place, mask=live, other=0)
        queries = _load_rows(q + head * D, rows, live, stride_q, D)
        highest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
        weight = tl.zeros((ROWS,), dtype=tl.float32)
        total = tl.zeros((ROWS, D), dtype=tl.float32)
        for at in range(first, last, ROWS):
            there = at + tl.arange(0, ROWS)
            inside = there < last
            columns = tl.load(order + there, mask=inside, other=0)
            keys = _load_rows(k + head * D, columns, inside, stride_k, D)
            values = _load_rows(v + head * D, columns, inside, stride_v, D)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            scores = tl.where(inside[None, :], scores, float("-inf"))
            now = tl.maximum(highest, tl.max(scores, 1))
            p = tl.exp2(scores - now[:, None])
            fade = tl.exp2(highest - now)
            weight = weight * fade + tl.sum(p, 1)
            total = total * fade[:, None]
            total = tl.dot(p.to(values.dtype), values, total, input_precision=PRECISION)
            highest = now
        total = total / weight[:, None]
        columns_out = tl.arange(0, D)
        tl.store(
            out + (rows * heads + head)[:, None] * D + columns_out[None, :],
            total.to(out.dtype.element_ty),
            mask=live[:, None],
        )
        tl.store(lse + rows * heads + head, highest + tl.log2(weight), mask=live)


@triton.jit
def _query_gradient_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    out: tl.tensor,
    grad: tl.tensor,
    lse: tl.tensor,
    delta: tl.tensor,
    grad_q: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    stride_q: tl.tensor,
    stride_k: tl.tensor,
    stride_v: tl.tensor,
    heads: tl.tensor,
    scale: tl.tensor,
    natural_scale: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Gradient of one tile of queries; also writes delta = sum(grad * out) of each row for the kernel over keys."""
    window = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    first = tl.load(offsets + window)
    last = tl.load(offsets + window + 1)
    start = first + tl.program_id(1) * ROWS
    if start < last:
        place = start + tl.arange(0, ROWS)
        live = place < last
        rows = tl.load(order + place, mask=live, other=0)
        queries = _load_rows(q + head * D, rows, live, stride_q, D)
        grads = _load_rows(grad + head * D, rows, live, heads * D, D)
        outs = _load_rows(out + head * D, rows, live, heads * D, D)
        level = tl.load(lse + rows * heads + head, mask=live, other=0.0)
        product = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
        tl.store(delta + rows * heads + head, product, mask=live)
        total = tl.zeros((ROWS, D), dtype=tl.float32)
        for at in range(first, last, ROWS):
            there = at + tl.arange(0, ROWS)
            inside = there < last
            columns = tl.load(order + there, mask=inside, other=0)
            keys = _load_rows(k + head * D, columns, inside, stride_k, D)
            values = _load_rows(v + head * D, columns, inside, stride_v, D)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            p = tl.where(inside[None, :], tl.exp2(scores - level[:, None]), 0.0)
            slope = tl.dot(grads, tl.trans(values), input_precision=PRECISION)
            ds = p * (slope - product[:, None])
            total = tl.dot(ds.to(keys.dtype), keys, total, input_precision=PRECISION)
        tl.store(
            grad_q + (rows * heads + head)[:, None] * D + tl.arange(0, D)[None, :],
            (total * natural_scale).to(grad_q.dtype.element_ty),
            mask=live[:, None],
        )


@triton.jit
def _key_gradient_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    grad: tl.tensor,
    lse: tl.tensor,
    delta: tl.tensor,
    grad_k: tl.tensor,
    grad_v: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    stride_q: tl.tensor,
    stride_k: tl.tensor,
    stride_v: tl.tensor,
    heads: tl.tensor,
    scale: tl.tensor,
    natural_scale: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Gradients of one tile of keys and values; everything is transposed: keys are rows, queries columns."""
    window = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    first = tl.load(offsets + window)
    last = tl.load(offsets + window + 1)
    start = first + tl.program_id(1) * ROWS
    if start < last:
        place = start + tl.arange(0, ROWS)
        live = place < last
        rows = tl.load(order + place, mask=live, other=0)
        keys = _load_rows(k + head * D, rows, live, stride_k, D)
        values = _load_rows(v + head * D, rows, live, stride_v, D)
        total_k = tl.zeros((ROWS, D), dtype=tl.float32)
        total_v = tl.zeros((ROWS, D), dtype=tl.float32)
        for at in range(first, last, ROWS):
            there = at + tl.arange(0, ROWS)
            inside = there < last
            columns = tl.load(order + there, mask=inside, other=0)
            queries = _load_rows(q + head * D, columns, inside, stride_q, D)
            grads = _load_rows(grad + head * D, columns, inside, heads * D, D)
            level = tl.load(lse + columns * heads + head, mask=inside, other=0.0)
            product = tl.load(delta + columns * heads + head, mask=inside, other=0.0)
            scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
            p = tl.where(inside[None, :], tl.exp2(scores - level[None, :]), 0.0)
            total_v = tl.dot(p.to(grads.dtype), grads, total_v, input_precision=PRECISION)
            slope = tl.dot(values, tl.trans(grads), input_precision=PRECISION)
            ds = p * (slope - product[None, :])
            total_k = tl.dot(ds.to(queries.dtype), queries, total_k, input_precision=PRECISION)
        target = (rows * heads + head)[:, None] * D + tl.arange(0, D)[None, :]
        tl.store(grad_k + target, (total_k * natural_scale).to(grad_k.dtype.element_ty), mask=live[:, None])
        tl.store(grad_v + target, total_v.to(grad_v.dtype.element_ty), mask=live[:, None])


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)  # every row is in one window, so all is written
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        scale = 1 / math.sqrt(q.shape[2])
        _forward_kernel[_programs(plan, q)](
            q, k, v, out, lse, plan.order, plan.offsets, *_strides(q, k, v), q.shape[1], scale * math.log2(math.e),
            **_settings(q),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        grad, plan = grads[0].contiguous(), ctx.plan
        grad_q, grad_k, grad_v = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3))
        delta = torch.empty_like(lse)
        shared = (plan.order, plan.offsets, *_strides(q, k, v), q.shape[1], ctx.scale * math.log2(math.e), ctx.scale)
        programs, settings = _programs(plan, q), _settings(q)
        _query_gradient_kernel[programs](q, k, v, out, grad, lse, delta, grad_q, *shared, **settings)
        _key_gradient_kernel[programs](q, k, v, grad, lse, delta, grad_k, grad_v, *shared, **settings)
        return grad_q, grad_k, grad_v, None


def _programs(plan: WindowPlan, q: Tensor) -> tuple[int, int]:
    """Windows times heads, and tiles of the longest window: tiles past a window's end return at once."""
    return (len(plan.offsets) - 1) * q.shape[1], triton.cdiv(plan.longest, _rows(q))


def _strides(*tensors: Tensor) -> list[int]:
    return [t.stride(0) for t in tensors]


def _rows(q: Tensor) -> int:
    """Rows of a tile: halved where tiles of float32 or of 128 channels spill registers (compiled for sm_90, 3.6)."""
    return BLOCK >> (q.dtype == torch.float32) >> (q.shape[2] > 64)


def _settings(q: Tensor) -> dict[str, Any]:
    warps = 8 if q.shape[2] == 64 and q.dtype != torch.float32 else 4  # 64 rows x 64 channels: 255 registers with 4
    return {"D": q.shape[2], "ROWS": _rows(q), "PRECISION": "ieee", "num_warps": warps, "num_stages": 2}


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """Attention within each window.

    Args:
        q, k, v: (N, H, D) of one dtype, D 16, 32, 64 or 128; strided views are read in place if each row is contiguous.
        plan: windows of the N rows.

    Returns:
        (N, H, D).
    """
    if len(q) == 0:
        return q + k + v  # keeps the graph
    packed = [t if t.stride()[1:] == (t.shape[2], 1) else t.contiguous() for t in (q, k, v)]
    out: Tensor = _WindowAttention.apply(*packed, plan)
    return out
