"""Depth-based voxel carving (Focusing, section 3.2): of the latents, only what a view can see goes into the decoder.

The paper's inequality is written for depths that fall away from the camera; taken literally with lengths it deletes the
surface. Here a voxel stays where its centre's length is below the depth plus r.

Which depth: the paper looks at the pixel under the voxel's centre. A voxel of the latent covers many pixels (4 x 4 at
128^3 in 518^2, more when zoomed), and one seen only past the edge of something nearer is then lost, or saved by the
neighbourhood. Here it is the largest depth within the voxel's footprint: with r of at least half a voxel's diagonal (0.87
latent voxels) every voxel that holds a surface which a pixel sees is kept, which is proved, not hoped for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from shapecodec.camera import Camera
from shapecodec.codecs.focusing.footprint import Footprints, footprints
from shapecodec.codecs.focusing.select import take_rows, voxel_level
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, neighbour_taps
from shapecodec.latents import Latents

Unit = Literal["latent", "output"]
Lookup = Literal["footprint", "centre"]


class Kept(NamedTuple):
    """Latents that were kept.

    Args:
        latents: in the order of the rows.
        rows: (K,) int64 ascending, the rows of the given latents.
    """

    latents: Latents
    rows: Tensor


def carve(
    latents: Latents,
    cameras: Sequence[Camera],
    depth: Tensor,
    *,
    items: Sequence[int] | None = None,
    threshold: float = 2.0,
    unit: Unit = "latent",
    lookup: Lookup = "footprint",
) -> Kept:
    """Keep the voxels that views can see, and their 3^3 neighbourhood among the given voxels.

    Args:
        latents: one level with coordinates, of any codec.
        cameras: V views in the frame of the unit cube, all of the depth map's size.
        depth: (V, H, W) lengths along the viewing axis (`Camera.to_lengths`), inf where nothing is.
        items: V numbers, which shape of the batch each view shows; by default view v shows shape v. A voxel stays where any
            view of its shape keeps it; a shape without a view keeps nothing.
        threshold: r. The paper's is 2 / resolution, of which "latent" is our reading (facts: with the output's resolution r
            is below half a voxel's diagonal).
        unit: voxels that r counts, of the latents or of the output.
        lookup: where the depth is read: the largest within the voxel's footprint, or under its centre (the paper).

    Raises:
        BadLatents: latents without coordinates.
        BadArgument: views, depth and items that do not fit each other.
    """
    _, grid = voxel_level(latents)
    voxels = grid.resolution if unit == "latent" else latents.resolution
    seen = seen_voxels(grid, cameras, depth, items=items, reach=threshold / voxels, lookup=lookup)
    rows = seen.nonzero()[:, 0]
    return Kept(take_rows(latents, rows), rows)


def seen_voxels(
    grid: SparseGrid,
    cameras: Sequence[Camera],
    depth: Tensor,
    *,
    items: Sequence[int] | None = None,
    reach: float,
    lookup: Lookup = "footprint",
) -> Tensor:
    """(N,) bool: the voxels that `carve` keeps; for carving before there are latents. `reach` is r in units of the cube."""
    items = list(range(len(cameras)) if items is None else items)
    sizes = {(camera.height, camera.width) for camera in cameras}
    if depth.ndim != 3 or not len(cameras) == len(items) == len(depth) or sizes - {tuple(depth.shape[1:])}:
        raise BadArgument(
            f"{len(cameras)} cameras of {sorted(sizes)} pixels, {len(items)} items and depth {tuple(depth.shape)}.",
            where="carve",
            hint="a camera, an item and a depth map of its size for every view.",
        )
    if any(not 0 <= item < grid.batch_size for item in items):
        raise BadArgument(f"items {items} of a batch of {grid.batch_size}.", where="carve")
    if lookup not in ("footprint", "centre"):
        raise BadArgument(f"unknown lookup '{lookup}'.", where="carve", hint="footprint or centre.")
    seen = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    for camera, item, picture in zip(cameras, items, depth, strict=True):
        rows = slice(int(grid.offsets[item]), int(grid.offsets[item + 1]))
        found = footprints(grid.coords[rows], grid.resolution, camera)
        seen[rows] |= _in_front(found, picture.to(grid.device).double(), reach, lookup)
    return with_neighbours(grid, seen)


def with_neighbours(grid: SparseGrid, wanted: Tensor) -> Tensor:
    """(N,) bool: the wanted voxels (N,) and those of the grid in the 3^3 neighbourhood of one."""
    around = grid.coords[wanted][:, None] + neighbour_taps(grid.device)  # not the whole grid's map: half of the time
    near = grid.lookup(around, grid.batch_index()[wanted][:, None])
    found = torch.zeros_like(wanted)
    found[near[near >= 0]] = True
    return found


def _in_front(found: Footprints, depth: Tensor, reach: float, lookup: Lookup) -> Tensor:
    """(N,) bool: within the image, in front of the camera, and not behind the depth (H, W) by more than `reach`."""
    low, high = found.low, found.high
    if lookup == "centre":
        low = high = found.centre
    size = low.new_tensor([depth.shape[1], depth.shape[0]])
    left_top = torch.stack([low[:, 0] + 1, 1 - high[:, 1]], 1) / 2 * size
    right_bottom = torch.stack([high[:, 0] + 1, 1 - low[:, 1]], 1) / 2 * size
    inside = ((right_bottom >= 0) & (left_top < size)).all(1) & (high >= low).all(1)
    first = left_top[inside].floor().clamp_min(0).long()
    last = right_bottom[inside].floor().clamp_min(0).minimum(size - 1).long().maximum(first)
    front = torch.zeros(len(low), dtype=torch.bool, device=low.device)
    front[inside] = found.length[inside] <= _largest(depth, first, last) + reach
    return front


def _largest(depth: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """(N,) the largest of depth (H, W) in windows from pixel `first` to `last` (N, 2), both (column, row).

    Four reads of a map of maxima over 2^k x 2^k pixels; k fits the longer side, so a narrow window sees some more.
    """
    longest = (last - first).amax(1) + 1
    answer = depth.new_full((len(first),), -torch.inf)
    maxima, side = depth, 1
    while len(first) and side <= int(longest.max()):
        rows = ((longest >= side) & (longest < 2 * side)).nonzero()[:, 0]
        start, end = first[rows], (last[rows] - side + 1).clamp_min(0)
        reads = [maxima[i, j] for i in (start[:, 1], end[:, 1]) for j in (start[:, 0], end[:, 0])]
        answer[rows] = torch.stack(reads).amax(0)
        maxima, side = _doubled(maxima, side), 2 * side
    return answer


def _doubled(maxima: Tensor, side: int) -> Tensor:
    """Maxima over windows of twice the side; those at the far border end there."""
    for axis in (0, 1):
        length = maxima.shape[axis]
        beyond = torch.arange(length, device=maxima.device).add(side).clamp(max=length - 1)
        maxima = torch.maximum(maxima, maxima.index_select(axis, beyond))
    return maxima
