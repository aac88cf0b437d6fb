"""ShapePools: points of many shapes' surfaces, and points in space whose inside is known, resident on one device.

What is inside a shape does not change under an affine map. So each shape is labelled once, in its own frame, by exact winding
numbers, and augmentation moves the stored points (LaGeM, ICLR 2025, appendices A, B and D).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shapecodec.codecs.lagem.inputs import SIDE
from shapecodec.data.collection import MeshCollection, checked_mesh
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh
from shapecodec.ops import winding_number
from shapecodec.ops.closest_point import closest_point
from shapecodec.rng import rng

BALL = math.sqrt(3.0)  # radius of the volume points (appendix A.1): it holds the cube around the unit sphere
SIGMAS = 0.005, 0.05  # of the near points (appendix A.2)
_CHUNK = 64  # shapes between two waits for the device
_MARGIN = 1.2  # more candidates than the first round's share of inside ones asks for


@dataclass(frozen=True)
class PoolSizes:
    """How many points of each shape are kept; the defaults take 0.7 MB a shape on the device.

    Args:
        surface: points of the surface, uniform by area.
        inside: volume points inside.
        outside: volume points outside.
        near: points near the surface.
        least_inside: a shape with fewer inside points among all candidates is left out: it has no inside, or none to learn from.
        tries: most candidates drawn in a shape's box for its inside points, as a multiple of `inside`.
    """

    surface: int = 16_384
    inside: int = 8_192
    outside: int = 8_192
    near: int = 16_384
    least_inside: int = 64
    tries: int = 8

    def __post_init__(self) -> None:
        if min(self.surface, self.inside, self.outside, self.near, self.least_inside) < 1 or self.tries < 2:
            raise BadArgument(f"{self}: sizes start at 1, tries at 2.", where="PoolSizes")


@dataclass(frozen=True, eq=False)
class ShapePools:
    """Points of M shapes in the paper's frame: the box centred, the largest vertex norm 1.

    Args:
        surface: (M, S, 3) float32, uniform by area.
        normals: (M, S, 3) float16 unit normals there, out of the solid, 0 where there is no out (`ops.winding_number.outward`).
        inside: (M, I, 3) float32 with |winding number| > 0.5, uniform over the inside; see `build_shape_pools` for thin shapes.
        outside: (M, O, 3) float32, uniform over the rest of the ball of radius sqrt(3).
        near: (M, W, 3) float32, the surface jittered: the first half by 0.005, the second by 0.05.
        near_inside: (M, W) bool.
        share: (M,) float32, the part of the ball's volume that is inside.
        distances: (M, I + O + W) float32 unsigned distances of `inside`, `outside` and `near` to the surface, or None.
        names: M names.
        left_out: names of the shapes without an inside.
    """

    surface: Tensor
    normals: Tensor
    inside: Tensor
    outside: Tensor
    near: Tensor
    near_inside: Tensor
    share: Tensor
    distances: Tensor | None
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        """Where the points are."""
        return self.surface.device

    def to(self, device: torch.device | str) -> ShapePools:
        """The same pools on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        there: dict[str, Any] = {name: t.to(device) for name, t in values.items() if isinstance(t, Tensor)}
        return replace(self, **there)

    @classmethod
    def joined(cls, pools: Sequence[ShapePools]) -> ShapePools:
        """Several pools of the same sizes and device as one, in their order; with distances where all have them."""
        if len(pools) == 1:
            return pools[0]
        columns = {f.name: [getattr(pool, f.name) for pool in pools] for f in fields(cls)}
        joined: dict[str, Any] = {
            name: torch.cat(parts) for name, parts in columns.items() if all(isinstance(part, Tensor) for part in parts)
        }
        names = tuple(name for pool in pools for name in pool.names)
        left_out = tuple(name for pool in pools for name in pool.left_out)
        return cls(**{"distances": None, **joined}, names=names, left_out=left_out)


class _Draft(NamedTuple):
    """A shape after the first round: its points, and which of them are inside."""

    mesh: Mesh
    generator: torch.Generator
    surface: Tensor
    normals: Tensor
    half: Tensor  # (3,) half the sides of its box
    boxed: Tensor
    boxed_inside: Tensor
    outer: Tensor
    outer_inside: Tensor
    near: Tensor
    near_inside: Tensor


def unit_sphere(mesh: Mesh) -> Mesh:
    """The mesh in the paper's frame (appendix B): the box of its faces centred, the largest norm of their corners 1.

    Never waits for the device.
    """
    corners = mesh.vertices[mesh.faces].double()
    centre = (corners.amin((0, 1)) + corners.amax((0, 1))) / 2
    radius = (corners - centre).norm(dim=2).amax()
    return checked_mesh(((mesh.vertices.double() - centre) / radius).float(), mesh.faces, mesh.name)


def is_inside(points: Tensor, mesh: Mesh) -> Tensor:
    """(Q,) bool for points (Q, 3) in the mesh's frame, by `ops.winding_number.inside`: |w| > 0.5."""
    return winding_number.inside(points, mesh.vertices, mesh.faces)


def ball_points(count: int, generator: torch.Generator, radius: float = BALL) -> Tensor:
    """(count, 3) float32 uniform in a ball around the origin, on the generator's device (appendix A.1)."""
    device = generator.device
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, device=device), dim=1)
    return direction * radius * torch.rand(count, 1, generator=generator, device=device).pow(1 / 3)


def occupancy_queries(mesh: Mesh, count: int, seed: int = 0, *, radius: float = BALL) -> tuple[Tensor, Tensor]:
    """Volume points of a shape with exact labels, to measure an IoU with; a function of the mesh and `seed`.

    Args:
        mesh: in any frame.
        count: points, uniform in the ball.
        seed: of the points, which do not depend on the mesh.
        radius: of the ball around the shape's unit sphere; 1 still holds the whole inside and five times as much of it.

    Returns:
        (count, 3) float32 in the paper's frame (see `unit_sphere`) and (count,) bool inside.
    """
    points = ball_points(count, rng(seed, purpose="occupancy queries", device=mesh.vertices.device), radius)
    return points, is_inside(points, unit_sphere(mesh))


def build_shape_pools(
    meshes: MeshCollection | Iterable[MeshCollection], sizes: PoolSizes, seed: int = 0, *, distances: bool = False
) -> ShapePools:
    """Points and labels of every mesh that has an inside, on the collection's device.

    Inside points are drawn in the shape's box and kept where inside: as the ball's would be, for a tenth of the labels or less.
    A shape whose box gives fewer than `inside` of them in all tries has them repeated; if they are fewer than an eighth, its
    inside near points join them. So a point that counts as inside is inside, however thin the shape is (appendix D's intent).

    What is drawn of a shape is a function of (seed, its name): other shapes do not change it.

    Args:
        meshes: in any frames; several collections, all on one device, are taken one after the other, as they come.
        sizes: of the pools.
        seed: of all draws.
        distances: also measure unsigned distances.

    Raises:
        BadArgument: no mesh has an inside.
    """
    rows: list[dict[str, Tensor]] = []
    names: list[str] = []
    left_out: list[str] = []
    parts = [meshes] if isinstance(meshes, MeshCollection) else meshes
    every = (part.mesh(index) for part in parts for index in range(len(part)))
    while chunk := list(islice(every, _CHUNK)):
        drafts = [_draft(unit_sphere(mesh), sizes, seed) for mesh in chunk]
        counts = torch.stack([torch.stack([d.boxed_inside.sum(), d.near_inside.sum()]) for d in drafts]).tolist()
        for draft, (boxed, near) in zip(drafts, counts, strict=True):
            if boxed + near < sizes.least_inside:
                left_out.append(draft.mesh.name)
                continue
            names.append(draft.mesh.name)
            rows.append(_finished(draft, sizes, boxed, distances))
    if not rows:
        raise BadArgument(
            f"none of {len(left_out)} shapes has an inside, the first is '{left_out[0]}'.",
            where="build_shape_pools",
            hint="closed meshes; open sheets bound no volume.",
        )
    columns: dict[str, Any] = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return ShapePools(**{"distances": None} | columns, names=tuple(names), left_out=tuple(left_out))


def _draft(mesh: Mesh, sizes: PoolSizes, seed: int) -> _Draft:
    """Surface and near points, and the first candidates for volume points, labelled in one go."""
    device = mesh.vertices.device
    generator = rng(seed, purpose=f"occupancy pool {mesh.name}", device=device)
    half_near = -(-sizes.near // 2)
    surface, face = mesh.sample(max(sizes.surface, half_near), generator)
    normals = mesh.face_normals()[face[: sizes.surface]]
    normals = winding_number.outward(surface[: sizes.surface], normals, mesh.vertices, mesh.faces, step=SIDE).half()
    jitter = torch.randn(2, half_near, 3, generator=generator, device=device)
    near = torch.cat([surface[:half_near] + sigma * part for sigma, part in zip(SIGMAS, jitter, strict=True)])[
        : sizes.near
    ]
    half = mesh.vertices[mesh.faces].abs().amax((0, 1))
    boxed = _box_points(2 * sizes.inside, half, generator)
    outer = ball_points(sizes.outside + sizes.outside // 2, generator)
    parts = (boxed, outer, near)
    inside = is_inside(torch.cat(parts), mesh).split([len(part) for part in parts])
    return _Draft(
        mesh, generator, surface[: sizes.surface], normals, half, boxed, inside[0], outer, inside[1], near, inside[2]
    )


def _finished(draft: _Draft, sizes: PoolSizes, boxed: int, distances: bool) -> dict[str, Tensor]:
    """The shape's row of every pool; `boxed` of the first candidates in its box are inside. Never waits for the device."""
    points, labels = draft.boxed, draft.boxed_inside
    if boxed < sizes.inside:
        wanted = math.ceil(_MARGIN * (sizes.inside - boxed) * len(points) / max(boxed, 1))
        more = _box_points(min(wanted, sizes.tries * sizes.inside - len(points)), draft.half, draft.generator)
        points, labels = torch.cat([points, more]), torch.cat([labels, is_inside(more, draft.mesh)])
    found = labels.sum()
    share = found / len(points) * (2 * draft.half).prod() / (4 / 3 * math.pi * BALL**3)
    thin = found < -(-sizes.inside // 8)
    inside = _selected(torch.cat([points, draft.near]), torch.cat([labels, draft.near_inside & thin]), sizes.inside)
    outside = _selected(draft.outer, ~draft.outer_inside, sizes.outside)
    row = {"surface": draft.surface, "normals": draft.normals, "inside": inside, "outside": outside}
    row |= {"near": draft.near, "near_inside": draft.near_inside, "share": share}
    if distances:
        places = torch.cat([inside, outside, draft.near])
        row["distances"] = closest_point(places, draft.mesh.vertices, draft.mesh.faces).distance
    return row


def _box_points(count: int, half: Tensor, generator: torch.Generator) -> Tensor:
    """(count, 3) float32 uniform in the box from -half to half; the box of a shape in the unit sphere lies in the ball."""
    return (2 * torch.rand(count, 3, generator=generator, device=half.device) - 1) * half


def _selected(points: Tensor, wanted: Tensor, count: int) -> Tensor:
    """(count, 3) the first wanted points (Q, 3), from the beginning again where they are too few; at least one is wanted."""
    order = torch.argsort((~wanted).byte(), stable=True)
    return points[order[torch.arange(count, device=points.device) % wanted.sum().clamp_min(1)]]
