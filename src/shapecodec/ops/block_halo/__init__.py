"""Blocks of 8^3 voxels and their halo: `gather_halo` pads each block from its neighbours, `pad_average` takes it back.

LoG3D (supplement: UBlocks with 2 voxels of padding; Pad-Average at decoding). Both gather over the 27-neighbour table,
so results are deterministic, and each is the other's adjoint up to the mean.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.block_halo import reference
from shapecodec.ops.block_halo.adjoint import GatherHalo, PadAverage, Primitives
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu", "triton")


def gather_halo(values: Tensor, grid: SparseGrid, pad: int = 2, fill: float = 1.0, *, backend: str = "auto") -> Tensor:
    """Pad each block with its neighbours' voxels.

    Args:
        values: (L, 8, 8, 8) floating point, row l is block l of `grid`, index [l, x, y, z].
        grid: L blocks (any batch; items never see each other) on the device of `values`.
        pad: voxels of padding on each side, 0 to 3.
        fill: the value of voxels in absent blocks.
        backend: auto, reference, cpu or triton.

    Returns:
        (L, S, S, S) with S = 8 + 2 pad, in the dtype of `values`; differentiable in `values`.

    Raises:
        BadArgument: wrong shape or device, pad outside 0..3, or a backend that cannot serve the device.
    """
    _check(values, grid, pad, side=8, op="gather_halo")
    chosen = choose(backend, values.device, available=BACKENDS, op="gather_halo")
    if chosen == "reference":
        return reference.gather(values, grid.neighbours(), pad, fill)
    return GatherHalo.apply(values, grid.neighbours(), pad, fill, _primitives(chosen))


def pad_average(values: Tensor, grid: SparseGrid, pad: int = 2, *, backend: str = "auto") -> Tensor:
    """Mean, for each voxel, over every padded block that covers it (1, 2, 4 or 8 of them inside the surface band).

    Args:
        values: (L, S, S, S) floating point with S = 8 + 2 pad, as `gather_halo` lays them out.
        grid: L blocks on the device of `values`.
        pad: voxels of padding on each side, 0 to 3.
        backend: auto, reference, cpu or triton.

    Returns:
        (L, 8, 8, 8) float32, accumulated in float32; differentiable in `values`.

    Raises:
        BadArgument: wrong shape or device, pad outside 0..3, or a backend that cannot serve the device.
    """
    _check(values, grid, pad, side=8 + 2 * pad, op="pad_average")
    chosen = choose(backend, values.device, available=BACKENDS, op="pad_average")
    if chosen == "reference":
        return reference.collect(values, grid.neighbours(), pad, mean=True)
    return PadAverage.apply(values, grid.neighbours(), pad, _primitives(chosen))


def _primitives(chosen: str) -> Primitives:
    return cast(Primitives, import_module(f"{__name__}.{chosen}"))


def _check(values: Tensor, grid: SparseGrid, pad: int, *, side: int, op: str) -> None:
    if not 0 <= pad <= 3:
        raise BadArgument(f"pad {pad} is outside 0..3.", where=op)
    if tuple(values.shape) != (len(grid), side, side, side):
        raise BadArgument(
            f"expected values ({len(grid)}, {side}, {side}, {side}), got {tuple(values.shape)}.", where=op
        )
    if not values.is_floating_point():
        raise BadArgument(f"expected floating point values, got {values.dtype}.", where=op)
    if values.device != grid.device:
        raise BadArgument(f"values are on {values.device}, the grid on {grid.device}.", where=op)
