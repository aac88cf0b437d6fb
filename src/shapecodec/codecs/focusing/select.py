"""Rows of latents with coordinates: what carving and zooming take away, without knowing whose latents they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from shapecodec.errors import BadLatents
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level


def voxel_level(latents: Latents) -> tuple[Level, SparseGrid]:
    """The one level of the latents and its grid.

    Raises:
        BadLatents: several levels, or one without coordinates: a set of vectors has no place in a picture.
    """
    level = latents.levels[0]
    if len(latents.levels) != 1 or level.coords is None or level.resolution is None:
        raise BadLatents(
            f"{len(latents.levels)} levels of which the first has {'no ' if level.coords is None else ''}coordinates.",
            where="focusing",
            hint="latents of a codec of sparse voxels: one level with coordinates.",
        )
    return level, SparseGrid(level.coords, level.offsets, level.resolution)


def take_rows(latents: Latents, rows: Tensor) -> Latents:
    """The latents of the rows (K,) int64 ascending; shapes may end up empty. Differentiable in the features."""
    level, grid = voxel_level(latents)
    counts = torch.bincount(grid.batch_index()[rows], minlength=grid.batch_size).cpu()
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return replace(latents, levels=(Level(level.feats[rows], offsets, grid.coords[rows], level.resolution),))
