"""Oriented points on a triangle mesh, many at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import MORTON_BITS, morton_encode

__all__ = ["SurfacePoints", "sample_surface"]

OP = "sample_surface"


class SurfacePoints(NamedTuple):
    """P points of a surface.

    Args:
        places: (P, 3) float32.
        normals: (P, 3) float32 unit normals of their faces.
        face: (P,) int64.
    """

    places: Tensor
    normals: Tensor
    face: Tensor


def sample_surface(
    vertices: Tensor,
    faces: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    voxels: int | None = None,
    oversample: int = 4,
) -> SurfacePoints:
    """Points uniform by area, spread evenly, in the order of the faces; never waits for the device.

    The faces' running area (float64) is cut into `count` equal pieces and each gives one point, uniform within it. Every place is
    as likely as any other, and a face with k / count of the area gets k points, give or take one, where independent draws are
    off by the root of k.

    With `voxels`, of `oversample` times as many points those are kept that make the numbers in the voxels as equal as they can
    be: from every voxel one, then from every one that has another a second, until there are enough.

    Args:
        vertices: (V, 3) floating point.
        faces: (F, 3) int64, at least one of non-zero area.
        count: P, at least 1.
        generator: on the vertices' device, or on the CPU, where it only draws a seed.
        voxels: an axis of the unit cube, up to 2^20; places outside count as in its outermost ones.
        oversample: candidates for each point where `voxels` is given.

    Raises:
        BadArgument: numbers out of range, or no faces.
    """
    if count < 1 or oversample < 1 or not 1 <= (voxels or 1) <= 1 << MORTON_BITS or len(faces) == 0:
        raise BadArgument(
            f"{count} points of {len(faces)} faces, {voxels} voxels, oversample {oversample}.",
            where=OP,
            hint="all of them at least 1.",
        )
    vertices, generator = vertices.detach(), _beside(generator, vertices.device)
    drawn = count if voxels is None else oversample * count
    corners = vertices.double()[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = cross.norm(dim=1).cumsum(0)
    draw = torch.rand(drawn, generator=generator, device=vertices.device, dtype=torch.float64)
    place = (torch.arange(drawn, device=vertices.device) + draw) * (areas[-1] / drawn)
    face = torch.searchsorted(areas, place, right=True).clamp_(max=len(faces) - 1)
    share = torch.rand(drawn, 2, generator=generator, device=vertices.device)
    root = share[:, :1].sqrt()
    weights = torch.cat([1 - root, root * (1 - share[:, 1:]), root * share[:, 1:]], 1)
    points = (weights[:, :, None] * vertices.float()[faces[face]]).sum(1)
    if voxels is not None:
        kept = _even(points, voxels, count, generator)
        points, face = points[kept], face[kept]
    normals = torch.nn.functional.normalize(cross, dim=1, eps=1e-300).float()
    return SurfacePoints(points, normals[face], face)


def _even(points: Tensor, voxels: int, count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64 ascending rows of the points (M, 3) that fill their voxels evenly; who of a voxel is chance."""
    cells = ((points + 0.5) * voxels).floor().clamp_(0, voxels - 1).to(torch.int32)
    chance = torch.rand(len(points), generator=generator, device=points.device)
    order = chance.argsort()
    key, by_voxel = morton_encode(cells[order]).sort(stable=True)
    order = order[by_voxel]
    fresh = torch.ones_like(key, dtype=torch.bool)
    fresh[1:] = key[1:] != key[:-1]
    row = torch.arange(len(key), device=key.device)
    turn = (
        row - torch.where(fresh, row, 0).cummax(0).values
    ).double() + chance  # the last round goes to some by chance
    return order[turn.argsort()[:count]].sort().values


def _beside(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded by one on the CPU if it must be."""
    if generator.device.type == device.type:
        return generator
    if generator.device.type != "cpu":
        raise BadArgument(f"the generator is on {generator.device}, the mesh on {device}.", where=OP)
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
