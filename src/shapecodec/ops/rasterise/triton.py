"""`rasterise` on CUDA: an atomic minimum of depth and index on every covered pixel, two launches a view.

Meshes of 86 thousand to 4 million faces at 518 x 518 have faces of a few pixels down to a tenth of one: most boxes hold no
centre, and binning faces to tiles would sort as many entries as the whole picture has pixels. So a lane draws a face whose
box holds up to `FEW` centres by itself, and the z-buffer is read first, so that what is hidden costs no atomic. Larger
faces are listed, and a second launch draws each with whole blocks, split into slices of rows so that a face as large as the
image is the work of many programs. The list's order differs from run to run; a minimum does not.

Arithmetic is that of the reference: int64 for edges, float64 for depth without fused operations. Vertices are put on the
lattice by one launch, which reads each once; a dozen passes over float64 copies cost more than the drawing at 4M faces.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.rasterise.lattice import BITS, DEEPEST, DEPTH_STEPS, EMPTY, HALF, LIMIT, OUTSIDE, Lattice

BLOCK = 128  # faces a program of the first launch
FEW = 16  # centres in the box of a face that one lane draws
PIXELS = 256  # of a step of the second launch
PROGRAMS, SLICE = (
    512,
    32,
)  # of the second launch: faces side by side, and rows of the image for each slice of a face's own

_BITS, _HALF, _OUTSIDE = tl.constexpr(BITS), tl.constexpr(HALF), tl.constexpr(OUTSIDE)
_DEEPEST, _STEPS = tl.constexpr(DEEPEST), tl.constexpr(float(DEPTH_STEPS))
_LIMIT, _EMPTY = tl.constexpr(float(LIMIT)), tl.constexpr(EMPTY)
_ROUNDS = tl.constexpr(1.5 * 2.0**52)  # adding and taking away rounds to the nearest integer, ties to even


@triton.jit(do_not_specialize=["vertices", "count", "width", "height"])
def _project(
    clip: tl.tensor, points: tl.tensor, depth: tl.tensor, lost: tl.tensor, vertices: tl.tensor, count: tl.tensor,
    width: tl.tensor, height: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """`lattice.to_lattice`, and 1 in `lost` (B,) for views with vertices that have no place."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < count
    w = tl.load(clip + i * 4 + 3, mask=live, other=1.0).to(tl.float64)
    front = w > 0
    w = tl.where(front, w, 1.0)
    x = tl.load(clip + i * 4, mask=live, other=0.0).to(tl.float64) / w
    y = tl.load(clip + i * 4 + 1, mask=live, other=0.0).to(tl.float64) / w
    z = tl.load(clip + i * 4 + 2, mask=live, other=0.0).to(tl.float64) / w
    x = (x + 1.0) * (width.to(tl.float64) * _HALF) + _ROUNDS - _ROUNDS
    y = (y - 1.0) * (height.to(tl.float64) * -_HALF) + _ROUNDS - _ROUNDS
    inside = front & (tl.abs(x) <= _LIMIT) & (tl.abs(y) <= _LIMIT)  # false for nan
    outside = live & (inside == 0)
    tl.store(points + i * 2, tl.where(inside, x, _OUTSIDE).to(tl.int32), mask=live)
    tl.store(points + i * 2 + 1, tl.where(inside, y, _OUTSIDE).to(tl.int32), mask=live)
    tl.store(depth + i, tl.where(inside, z, 0.0), mask=live)
    tl.store(lost + i // vertices, (outside * 1).to(tl.int32), mask=outside)


@triton.jit(do_not_specialize=["count"])
def _unpack(buffer: tl.tensor, face: tl.tensor, depth: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr) -> None:
    """`lattice.unpacked`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    packed = tl.load(buffer + i, mask=i < count, other=0)
    empty = packed == _EMPTY
    z = ((packed >> 32).to(tl.float64) + 0.5) / _STEPS - 1.0
    tl.store(face + i, tl.where(empty, -1, packed & 0xFFFFFFFF).to(tl.int32), mask=i < count)
    tl.store(depth + i, tl.where(empty, float("inf"), z).to(tl.float32), mask=i < count)


@triton.jit
def _least(dx: tl.tensor, dy: tl.tensor) -> tl.tensor:
    """The least value of an edge's function inside: centres on top and left edges belong to the face."""
    return tl.where((dy < 0) | ((dy == 0) & (dx > 0)), 0, 1)


@triton.jit
def _corner(points: tl.tensor, vertex: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    x = tl.load(points + vertex * 2, mask=live, other=0)
    y = tl.load(points + vertex * 2 + 1, mask=live, other=0)
    return x.to(tl.int64), y.to(tl.int64)


@triton.jit
def _face(
    points: tl.tensor, depth: tl.tensor, faces: tl.tensor, f: tl.tensor, live: tl.tensor
) -> tuple[tl.tensor, ...]:
    """Corners, turned so that the area is positive, their depths and whether the face is drawn at all."""
    f = f.to(tl.int64)
    a = tl.load(faces + f * 3, mask=live, other=0)
    b = tl.load(faces + f * 3 + 1, mask=live, other=0)
    c = tl.load(faces + f * 3 + 2, mask=live, other=0)
    ax, ay = _corner(points, a, live)
    bx, by = _corner(points, b, live)
    cx, cy = _corner(points, c, live)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    live = live & (ax != _OUTSIDE) & (bx != _OUTSIDE) & (cx != _OUTSIDE) & (area != 0)
    turned = area < 0
    b, c = tl.where(turned, c, b), tl.where(turned, b, c)
    bx, cx = tl.where(turned, cx, bx), tl.where(turned, bx, cx)
    by, cy = tl.where(turned, cy, by), tl.where(turned, by, cy)
    return a, b, c, ax, ay, bx, by, cx, cy, tl.abs(area), live


@triton.jit
def _box(
    ax: tl.tensor, ay: tl.tensor, bx: tl.tensor, by: tl.tensor, cx: tl.tensor, cy: tl.tensor,
    width: tl.tensor, height: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """First column and row whose centres a face may cover, and how many; the numbers are 0 or less for none."""
    left = tl.maximum((tl.minimum(ax, tl.minimum(bx, cx)) + (_HALF - 1)) >> _BITS, 0)
    top = tl.maximum((tl.minimum(ay, tl.minimum(by, cy)) + (_HALF - 1)) >> _BITS, 0)
    right = tl.minimum((tl.maximum(ax, tl.maximum(bx, cx)) - _HALF) >> _BITS, width - 1)
    bottom = tl.minimum((tl.maximum(ay, tl.maximum(by, cy)) - _HALF) >> _BITS, height - 1)
    return left, top, right - left + 1, bottom - top + 1


@triton.jit
def _hit(
    column: tl.tensor, row: tl.tensor, live: tl.tensor, ax: tl.tensor, ay: tl.tensor, bx: tl.tensor, by: tl.tensor,
    cx: tl.tensor, cy: tl.tensor, area: tl.tensor, za: tl.tensor, zb: tl.tensor, zc: tl.tensor, name: tl.tensor,
    width: tl.tensor, buffer: tl.tensor,
) -> None:  # fmt: skip
    """Draw one pixel of a face, if its centre is inside."""
    x = (column << _BITS) + _HALF
    y = (row << _BITS) + _HALF
    u = (cx - bx) * (y - by) - (cy - by) * (x - bx)
    v = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
    w = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    inside = (u >= _least(cx - bx, cy - by)) & (v >= _least(ax - cx, ay - cy)) & (w >= _least(bx - ax, by - ay))
    z = (u.to(tl.float64) * za + v.to(tl.float64) * zb + w.to(tl.float64) * zc) / area.to(tl.float64)
    inside = inside & live & (z >= -1.0) & (z <= 1.0)
    steps = tl.minimum(((z + 1.0) * _STEPS).to(tl.int64), _DEEPEST)
    packed = (steps << 32) | name
    place = buffer + row * width + column
    nearer = inside & (packed < tl.load(place, mask=inside, other=0))
    tl.atomic_min(place, packed, mask=nearer, sem="relaxed")


@triton.jit(do_not_specialize=["count", "width", "height"])
def _draw_small(
    points: tl.tensor, depth: tl.tensor, faces: tl.tensor, names: tl.tensor, buffer: tl.tensor, large: tl.tensor,
    large_count: tl.tensor, count: tl.tensor, width: tl.tensor, height: tl.tensor,
    NAMED: tl.constexpr, BLOCK: tl.constexpr, FEW: tl.constexpr,
) -> None:  # fmt: skip
    """Faces with at most FEW centres in their boxes are drawn, the others written to `large` (count,) int32."""
    f = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, ax, ay, bx, by, cx, cy, area, live = _face(points, depth, faces, f, f < count)
    left, top, columns, rows = _box(ax, ay, bx, by, cx, cy, width, height)
    live = live & (columns > 0) & (rows > 0)
    pixels = tl.where(live, columns * rows, 0)
    many = pixels > FEW
    slot = tl.atomic_add(large_count + f * 0, 1, mask=many, sem="relaxed")
    tl.store(large + slot, f, mask=many)
    pixels = tl.where(many, 0, pixels)
    trips = tl.max(pixels, 0)
    if trips > 0:
        some = pixels > 0
        za = tl.load(depth + a, mask=some, other=0.0)
        zb = tl.load(depth + b, mask=some, other=0.0)
        zc = tl.load(depth + c, mask=some, other=0.0)
        name = f.to(tl.int64)
        if NAMED:
            name = tl.load(names + f, mask=some, other=0)
        area = tl.where(some, area, 1)
        column = left
        row = top
        for k in range(trips):
            _hit(column, row, k < pixels, ax, ay, bx, by, cx, cy, area, za, zb, zc, name, width, buffer)
            column += 1
            wraps = column >= left + columns
            column = tl.where(wraps, left, column)
            row += wraps.to(tl.int64)


@triton.jit(do_not_specialize=["width", "height"])
def _draw_large(
    points: tl.tensor, depth: tl.tensor, faces: tl.tensor, names: tl.tensor, buffer: tl.tensor, large: tl.tensor,
    large_count: tl.tensor, width: tl.tensor, height: tl.tensor, NAMED: tl.constexpr, PIXELS: tl.constexpr,
) -> None:  # fmt: skip
    """Every PROGRAMS-th listed face, and of its rows one run of as many as the grid has slices."""
    lane = tl.arange(0, PIXELS).to(tl.int64)
    for entry in range(tl.program_id(0), tl.load(large_count), tl.num_programs(0)):
        f = tl.load(large + entry)
        a, b, c, ax, ay, bx, by, cx, cy, area, live = _face(points, depth, faces, f, f >= 0)
        left, top, columns, rows = _box(ax, ay, bx, by, cx, cy, width, height)
        za = tl.load(depth + a)
        zb = tl.load(depth + b)
        zc = tl.load(depth + c)
        name = f.to(tl.int64)
        if NAMED:
            name = tl.load(names + f)
        first = tl.program_id(1) * rows // tl.num_programs(1)
        end = (tl.program_id(1) + 1) * rows // tl.num_programs(1)
        pixels = ((end - first) * columns).to(tl.int32)
        for start in range(0, pixels, PIXELS):
            k = start + lane
            column = left + k % columns
            row = top + first + k // columns
            _hit(column, row, live & (k < pixels), ax, ay, bx, by, cx, cy, area, za, zb, zc, name, width, buffer)


def _programs(count: int, values: Tensor) -> tuple[tuple[int], int]:
    block = 256 if values.is_cuda else 4096  # the interpreter pays for programs
    return (triton.cdiv(count, block),), block


def project(clip: Tensor, size: tuple[int, int]) -> tuple[Lattice, Tensor]:
    """`lattice.to_lattice` of vertices (B, V, 4), and (B,) int32, 1 for views with vertices that have no place."""
    clip = clip.contiguous()
    points = torch.empty((*clip.shape[:2], 2), dtype=torch.int32, device=clip.device)
    depth = torch.empty(clip.shape[:2], dtype=torch.float64, device=clip.device)
    lost = torch.zeros(len(clip), dtype=torch.int32, device=clip.device)
    if depth.numel():
        programs, block = _programs(depth.numel(), clip)
        _project[programs](
            clip, points, depth, lost, clip.shape[1], depth.numel(), *size, BLOCK=block, enable_fp_fusion=False
        )
    return Lattice(points, depth), lost


def unpack(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """See `lattice.unpacked`."""
    face = torch.empty(buffer.shape, dtype=torch.int32, device=buffer.device)
    depth = torch.empty(buffer.shape, dtype=torch.float32, device=buffer.device)
    if buffer.numel():
        programs, block = _programs(buffer.numel(), buffer)
        _unpack[programs](buffer, face, depth, buffer.numel(), BLOCK=block, enable_fp_fusion=False)
    return face, depth


def draw(
    points: Tensor, depth: Tensor, faces: Tensor, names: Tensor | None, size: tuple[int, int], buffer: Tensor
) -> None:
    """See the reference."""
    width, height = size
    points, depth, faces = points.contiguous(), depth.contiguous(), faces.contiguous()
    large = torch.zeros(len(faces), dtype=torch.int32, device=faces.device)
    large_count = torch.zeros(1, dtype=torch.int32, device=faces.device)
    given = faces if names is None else names.contiguous()
    scene = (points, depth, faces, given, buffer, large, large_count)
    # fused multiply-adds round once where the specification rounds twice
    _draw_small[(triton.cdiv(len(faces), BLOCK),)](
        *scene, len(faces), width, height,
        NAMED=names is not None, BLOCK=BLOCK, FEW=FEW, num_warps=BLOCK // 32, enable_fp_fusion=False,
    )  # fmt: skip
    _draw_large[(min(PROGRAMS, len(faces)), triton.cdiv(height, SLICE))](
        *scene, width, height, NAMED=names is not None, PIXELS=PIXELS, num_warps=4, enable_fp_fusion=False
    )
