"""Which voxels a triangle mesh touches, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import MORTON_BITS, SparseGrid, morton_decode
from shapecodec.ops.dispatch import choose

__all__ = ["voxelise"]

OP = "voxelise"


def voxelise(
    vertices: Tensor,
    faces: Tensor,
    resolution: int,
    *,
    dilation: float = 0.0,
    fine: int = 4,
    backend: str = "auto",
) -> SparseGrid:
    """The voxels of resolution^3 whose closed box, enlarged by `dilation`, shares a point with a triangle.

    Separating axes in float64 (Akenine-Moeller 2001), so touching counts: a plane on a border fills both sides. Gaps below
    1e-9 voxel are none. A face without area is the segment or point that it is; parts outside the cube are ignored. The
    result depends neither on the order of the faces nor on the backend. The paper's input voxels (Focusing, section 3.4,
    with TripoSF's one-fine-voxel dilation) are `dilation=1`.

    Args:
        vertices: (V, 3) floating point, finite, in the unit cube's frame.
        faces: (F, 3) int64 rows of `vertices`; F may be 0.
        resolution: voxels an axis, 1 to 2^20.
        dilation: how far each box is enlarged to all sides, in fine voxels, i.e. in units of 1 / (resolution * fine).
        fine: fine voxels that an edge of a voxel holds; the decoder's factor of upsampling.
        backend: "cpu" (numba), "triton" (CUDA), "reference" (torch, any device with float64), or "auto".

    Returns:
        One item on the vertices' device.

    Raises:
        BadArgument: shapes, types, indices out of range, non-finite coordinates, or numbers out of range.
    """
    _check(vertices, faces, resolution, dilation, fine)
    chosen = choose(backend, vertices.device, available=("reference", "cpu", "triton"), op=OP)
    vertices, reach = vertices.detach(), dilation / fine
    if chosen == "cpu":
        from shapecodec.ops.voxelise.cpu import touched_keys as run
    elif chosen == "triton":
        from shapecodec.ops.voxelise.triton import touched_keys as run
    else:
        from shapecodec.ops.voxelise.reference import touched_keys as run
    keys = run(vertices, faces, resolution, reach)
    return SparseGrid(morton_decode(keys), torch.tensor([0, len(keys)]), resolution)


def _check(vertices: Tensor, faces: Tensor, resolution: int, dilation: float, fine: int) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise BadArgument(
            f"vertices and faces must be (n, 3), got {tuple(vertices.shape)} and {tuple(faces.shape)}.", where=OP
        )
    if not vertices.is_floating_point() or faces.dtype != torch.int64 or faces.device != vertices.device:
        raise BadArgument("vertices must be floating point and faces int64 on one device.", where=OP)
    if not 1 <= resolution <= 1 << MORTON_BITS:
        raise BadArgument(f"resolution {resolution} is outside [1, 2^{MORTON_BITS}].", where=OP)
    if not 0 <= dilation < float("inf") or fine < 1:
        raise BadArgument(f"dilation {dilation} and fine {fine} must be at least 0 and 1.", where=OP)
    if not bool(torch.isfinite(vertices).all()):
        raise BadArgument("vertices must be finite.", where=OP)
    if len(faces):
        low, high = (int(bound) for bound in faces.aminmax())
        if low < 0 or high >= len(vertices):
            raise BadArgument(f"faces point outside the {len(vertices):,} vertices ({low} to {high}).", where=OP)
