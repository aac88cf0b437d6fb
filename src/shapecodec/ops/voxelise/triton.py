"""voxelise on CUDA: the reference's boxes, with one Triton lane a pair of a triangle and a box.

The kernel reads the ten axes where they lie; the reference gathers 400 bytes a pair first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.voxelise import reference
from shapecodec.ops.voxelise.reference import AXES

LANES = 256


def touched_keys(vertices: Tensor, faces: Tensor, resolution: int, reach: float) -> Tensor:
    """See `reference.touched_keys`."""
    return reference.touched_keys(vertices, faces, resolution, reach, test=touches)


def touches(table: Tensor, triangle: Tensor, node: Tensor, size: float, reach: float) -> Tensor:
    """See `reference.touches`."""
    found = torch.zeros(len(triangle), dtype=torch.bool, device=triangle.device)
    if len(triangle):
        # As tensors: a Python float would reach the kernel in float32.
        lengths = torch.tensor([size, size / 2 + reach], dtype=torch.float64, device=triangle.device)
        grid = (triton.cdiv(len(triangle), LANES),)
        _touch[grid](
            table.contiguous(), triangle, node.contiguous(), lengths, found, len(triangle), AXES=AXES, LANES=LANES
        )
    return found


@triton.jit
def _touch(
    table: tl.tensor,
    triangle: tl.tensor,
    node: tl.tensor,
    lengths: tl.tensor,
    found: tl.tensor,
    count: tl.tensor,
    AXES: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    keep = lane < count
    size, half = tl.load(lengths), tl.load(lengths + 1)
    row = table + tl.load(triangle + lane, mask=keep, other=0) * (AXES * 5)
    x = (tl.load(node + lane * 3, mask=keep, other=0).to(tl.float64) + 0.5) * size
    y = (tl.load(node + lane * 3 + 1, mask=keep, other=0).to(tl.float64) + 0.5) * size
    z = (tl.load(node + lane * 3 + 2, mask=keep, other=0).to(tl.float64) + 0.5) * size
    touching = keep
    for axis in range(AXES):
        i = axis * 5
        ax = tl.load(row + i, mask=keep, other=0.0)
        ay = tl.load(row + i + 1, mask=keep, other=0.0)
        az = tl.load(row + i + 2, mask=keep, other=0.0)
        low = tl.load(row + i + 3, mask=keep, other=0.0)
        high = tl.load(row + i + 4, mask=keep, other=0.0)
        place = ax * x + ay * y + az * z
        radius = half * (tl.abs(ax) + tl.abs(ay) + tl.abs(az))
        touching = touching & (place + radius >= low) & (place - radius <= high)
    tl.store(found + lane, touching, mask=keep)
