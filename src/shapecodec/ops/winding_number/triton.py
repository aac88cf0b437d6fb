"""Winding numbers on CUDA: every triangle at every point in float32, a tile of triangles at a time.

A program owns BLOCK points and a piece of the triangles; the pieces' sums are added by torch in a fixed order, so
nothing depends on timing. Why so:

* Angles are added, not multiplied as complex numbers. A product of 300,000 unit numbers drifts by their roundings,
  each 6e-8 whatever its angle; a small angle is rounded in proportion to itself. atan2 is a polynomial: 8 terms.
* The determinant is a dot product with the normal, computed in float64 beforehand: its error, too, is in proportion
  to the triangle, where that of det(a, b, c) is 1e-7 of the cube of the distance.
* 32 angles are added in float32, their sum in float64: 1/32 of the pairs, so slow float64 units do not show.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512  # points a program: four a thread, which share the loads of a triangle
TILE = 32  # triangles between two additions in float64
RECORD = 16  # floats a triangle: corners, normal, in-plane bound, unused
IN_PLANE = 4e-7  # relative height under which a point is in the plane: the error bound of the determinant
FAR = 1e6  # in units of the mesh: beyond, every winding number is below 1e-12 of what the areas allow
PROGRAMS = 132 * 16  # on a large card; fewer would leave some of its processors without work
LEAST = 256  # triangles a program is worth starting for
_CHUNK = 1 << 22  # faces whose float64 intermediates are alive at a time

# atan(t) / t in powers of t^2 on [0, 1]: interpolation at Chebyshev nodes, relative error 2.0e-7 in float32
A0: tl.constexpr = tl.constexpr(0.9999998819964931)
A1: tl.constexpr = tl.constexpr(-0.3333181265562783)
A2: tl.constexpr = tl.constexpr(0.19966961829591537)
A3: tl.constexpr = tl.constexpr(-0.1400329018465227)
A4: tl.constexpr = tl.constexpr(0.09868865458132467)
A5: tl.constexpr = tl.constexpr(-0.05882975314306535)
A6: tl.constexpr = tl.constexpr(0.02378051859716587)
A7: tl.constexpr = tl.constexpr(-0.004559791986130455)
PI: tl.constexpr = tl.constexpr(math.pi)


@triton.jit
def _atan2(y: tl.tensor, x: tl.tensor) -> tl.tensor:
    """float32 atan2, absolute error below 5e-7; y is not 0."""
    height = tl.abs(y)
    width = tl.abs(x)
    t = tl.minimum(height, width) / tl.maximum(height, width)
    s = t * t
    value = ((((((A7 * s + A6) * s + A5) * s + A4) * s + A3) * s + A2) * s + A1) * s + A0
    value = value * t
    value = tl.where(height > width, 0.5 * PI - value, value)
    value = tl.where(x < 0.0, PI - value, value)
    return tl.where(y < 0.0, -value, value)


@triton.jit
def _half_angle(x: tl.tensor, y: tl.tensor, z: tl.tensor, base: tl.tensor) -> tl.tensor:
    """Half the solid angle of the triangle at `base` seen from points (B,); see `reference.half_angles`."""
    ax = tl.load(base) - x
    ay = tl.load(base + 1) - y
    az = tl.load(base + 2) - z
    bx = tl.load(base + 3) - x
    by = tl.load(base + 4) - y
    bz = tl.load(base + 5) - z
    cx = tl.load(base + 6) - x
    cy = tl.load(base + 7) - y
    cz = tl.load(base + 8) - z
    la = tl.sqrt(ax * ax + ay * ay + az * az)
    lb = tl.sqrt(bx * bx + by * by + bz * bz)
    lc = tl.sqrt(cx * cx + cy * cy + cz * cz)
    volume = ax * tl.load(base + 9) + ay * tl.load(base + 10) + az * tl.load(base + 11)
    ab = ax * bx + ay * by + az * bz
    bc = bx * cx + by * cy + bz * cz
    ca = cx * ax + cy * ay + cz * az
    below = (la * lb + ab) * lc + bc * la + ca * lb
    flat = tl.abs(volume) <= tl.load(base + 12) * la
    return tl.where(flat, 0.0, _atan2(tl.where(flat, 1.0, volume), below))


@triton.jit(do_not_specialize=["count", "faces", "piece"])
def _sums(
    points: tl.tensor,
    triangles: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    faces: tl.tensor,
    piece: tl.tensor,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """out (pieces, Q) float64: half angles of `piece` triangles summed; `faces` and `piece` are multiples of TILE."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = rows < count
    x = tl.load(points + rows * 3, mask=live, other=0.0)
    y = tl.load(points + rows * 3 + 1, mask=live, other=0.0)
    z = tl.load(points + rows * 3 + 2, mask=live, other=0.0)
    begin = tl.program_id(1) * piece
    end = tl.minimum(begin + piece, faces)
    base = triangles + begin.to(tl.int64) * 16
    total = tl.zeros([BLOCK], tl.float64)
    for _ in range(begin, end, TILE):
        part = tl.zeros([BLOCK], tl.float32)
        for _ in range(0, TILE, 4):
            for k in tl.static_range(4):
                part += _half_angle(x, y, z, base + k * 16)
            base += 64
        total += part.to(tl.float64)
    tl.store(out + tl.program_id(1).to(tl.int64) * count + rows, total, mask=live)


def _records(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F', 16) float32, F' a multiple of TILE: corners, normal (length twice the area) and IN_PLANE times its length.

    The triangles added at the end are zeros: without area they have no angle anywhere.
    """
    records = vertices.new_zeros(-(-len(faces) // TILE) * TILE, RECORD)
    for first in range(0, len(faces), _CHUNK):
        corners = vertices[faces[first : first + _CHUNK]]
        a, b, c = corners.double().unbind(1)
        normal = torch.linalg.cross(b - a, c - a)
        rows = records[first : first + len(corners)]
        rows[:, :9] = corners.flatten(1)
        rows[:, 9:12] = normal
        rows[:, 12] = IN_PLANE * normal.norm(dim=1)
    return records


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """(Q,) float32, see the public function; at least one point and one face, all finite.

    Coordinates are multiplied by a power of two (exact), which no angle notices, so that cubes of lengths fit float32.
    """
    largest = float(vertices.abs().max())
    scale = 2.0 ** -math.frexp(largest)[1]
    scaled = (vertices.double() * scale).float()
    moved = (points.double() * scale).clamp(-FAR, FAR).float().contiguous()
    records = _records(scaled, faces)
    blocks = triton.cdiv(len(moved), BLOCK)
    pieces = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(len(records), LEAST))
    piece = triton.cdiv(triton.cdiv(len(records), pieces), TILE) * TILE
    pieces = triton.cdiv(len(records), piece)
    sums = torch.zeros(pieces, len(moved), dtype=torch.float64, device=points.device)
    _sums[(blocks, pieces)](moved, records, sums, len(moved), len(records), piece, BLOCK=BLOCK, TILE=TILE, num_warps=4)
    return (sums.sum(0) / (2.0 * math.pi)).float()
