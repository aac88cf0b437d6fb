"""Carving inside the encoder: which voxels it must see so that the kept ones come out as if it had seen all.

Beyond the paper, whose encoder sees every voxel and is the floor of its cost. Attention stays within windows and
convolutions within 3^3, so a voxel's output depends on a bounded set of inputs, found by walking the blocks backwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.codecs.focusing.carve import with_neighbours
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, WindowPlan


def encoder_needs(
    grid: SparseGrid, wanted: Tensor, depth: int, *, last: int | None = None, window: int = 8, convs_per_block: int = 0
) -> Tensor:
    """(N,) bool: the input voxels on which the wanted outputs of a `SparseTransformer` depend.

    The encoder run on the grid of these voxels alone (in the same coordinates, so that windows fall alike) gives the wanted
    rows what it gives them on the whole grid; rows of the halo come out different and are dropped. The set is the smallest
    that can promise this. It grows by half a window a block: with `last` below `depth` it is smaller, and the answer of the last
    blocks alone is exact.

    Args:
        grid: all voxels.
        wanted: (N,) bool, the rows whose outputs are wanted (`carve.seen_voxels`).
        depth: blocks of the encoder; odd ones shift their windows by half.
        last: of them, how many find their windows complete; None for all.
        window: voxels an axis of a window.
        convs_per_block: 3^3 convolutions after each attention.
    """
    if wanted.shape != (len(grid),) or wanted.dtype != torch.bool:
        raise BadArgument(f"wanted {tuple(wanted.shape)} {wanted.dtype} on {len(grid)} voxels.", where="encoder_needs")
    last = depth if last is None else last
    if not 0 <= last <= depth:
        raise BadArgument(f"the last {last} of {depth} blocks.", where="encoder_needs", hint=f"0 to {depth}.")
    for block in reversed(range(depth - last, depth)):
        for _ in range(convs_per_block):
            wanted = with_neighbours(grid, wanted)
        wanted = _whole_windows(grid.windows(window, window // 2 * (block % 2)), wanted)
    return wanted


def _whole_windows(plan: WindowPlan, wanted: Tensor) -> Tensor:
    """(N,) bool: all rows of the windows that hold a wanted one."""
    counts = plan.offsets.diff().long()
    owner = torch.repeat_interleave(torch.arange(len(counts), device=wanted.device), counts)
    hit = torch.zeros(len(counts), dtype=torch.bool, device=wanted.device)
    hit[owner[wanted[plan.order]]] = True
    return hit[owner][plan.inverse]
