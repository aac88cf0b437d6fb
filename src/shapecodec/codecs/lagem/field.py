"""What LaGeM decodes to: a function of points, meshed with far fewer queries than voxels.

Coarse to fine: all voxels of a first grid, then only those near the surface on each finer one (hierarchical volume
decoding, FlashVDM, Lai et al. 2025). Theirs dilates a band and hopes that it holds the surface; here the surface is
followed (`volume`), so that a mesh has no artificial ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.codecs.lagem.volume import LARGEST, Volume
from shapecodec.errors import BadArgument, BadLatents, BadMesh
from shapecodec.mesh import Mesh
from shapecodec.ops.marching_cubes import marching_cubes
from shapecodec.ops.marching_cubes.reference import NUDGE

SURFACES = ("auto", "single")
_SLACK = 0.75  # the first grid may have this share of `coarse`, so that resolutions of 48 * 2^k need no dense 96^3


@dataclass(frozen=True)
class QueryReport:
    """How a surface was made.

    Args:
        requested: the mode that was asked for.
        mode: "single": a field with a sign has one layer.
        reason: in words.
        queries: points at which the field was evaluated, those of `refine` included.
        dense: voxels of the grid, what a dense evaluation would take.
    """

    requested: str
    mode: str
    reason: str
    queries: int
    dense: int

    @property
    def ratio(self) -> float:
        """How many times fewer queries than voxels."""
        return self.dense / self.queries


@dataclass(frozen=True, eq=False)
class QueryField:
    """A solid as a function: inside where it exceeds `level`.

    Args:
        values: points (Q, 3) float32 of the unit cube on `device` -> (Q,), larger inside, finite.
        resolution: voxels an axis of the mesh, a multiple of 8.
        level: the value on the surface.
        coarse: voxels an axis of the first grid, of which every one is evaluated. A part that leaves no trace there (no
            voxel inside it, none that it brings near the level) is missed as a whole.
        chunk: points of one call of `values`; the result does not depend on it.
        near: voxels; a voxel whose value could reach the level within so many, by the steepest slope to a neighbour, is
            looked at more closely, too. 0 looks only where the sign changes, and loses walls thinner than a voxel of `coarse`
            that no sample hits.
        refine: further evaluations for each vertex, by which it is moved along its edge onto the surface (false position with
            the Illinois rule); 0 leaves it where a linear field would have the level.
        device: where points are made.

    Raises:
        BadArgument: an argument outside its range.
    """

    values: Callable[[Tensor], Tensor]
    resolution: int
    level: float = 0.0
    coarse: int = 64
    chunk: int = 1 << 18
    near: float = 1.0
    refine: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        _check_resolution(self.resolution)
        if self.coarse < 8 or self.chunk < 1 or self.refine < 0 or not self.near >= 0.0 or not abs(self.level) < 1e6:
            raise BadArgument(
                f"coarse {self.coarse}, chunk {self.chunk}, refine {self.refine}, near {self.near}, level {self.level}.",
                where="QueryField",
                hint="coarse >= 8, chunk >= 1, refine >= 0, near >= 0, |level| < 1e6.",
            )

    def sample(self, points: Tensor) -> Tensor:
        """Values (Q,) float32 at points (Q, 3) of the unit cube; the surface is at `level`."""
        if points.ndim != 2 or points.shape[1] != 3:
            raise BadArgument(f"expected points (Q, 3), got {tuple(points.shape)}.", where="QueryField.sample")
        with torch.no_grad():
            return _Queries(self.values, self.chunk)(points.float())

    def to_mesh(self, resolution: int | None = None, surface: str = "auto") -> Mesh:
        """The surface in the unit cube; see `to_surface`."""
        return self.to_surface(resolution, surface)[0]

    @torch.no_grad()
    def to_surface(self, resolution: int | None = None, surface: str = "auto") -> tuple[Mesh, QueryReport]:
        """The surface in the unit cube and how it was made.

        Watertight. Each connected piece of it is the one that a dense evaluation gives, vertex by vertex. A solid that
        reaches the cube's border is closed along the outermost voxels.

        Args:
            resolution: voxels an axis, a multiple of 8; None takes the field's own.
            surface: single or auto, which are the same here.

        Raises:
            BadArgument: a resolution that is not a multiple of 8, or a mode of fields without a sign.
            BadMesh: the field has no surface at this level.
            BadLatents: the field is not finite.
        """
        if surface not in SURFACES:
            raise BadArgument(
                f"surface '{surface}' is not for this field: it has a sign, so its surface is a single layer.",
                where="QueryField.to_surface",
                hint=f"one of {', '.join(SURFACES)}.",
            )
        resolution = self.resolution if resolution is None else resolution
        _check_resolution(resolution)
        queries = _Queries(self.values, self.chunk)
        volume = self._volume(resolution, queries)
        values, grid = volume.blocks()
        vertices, faces = marching_cubes(values, grid, self.level, fill=-LARGEST, absent="skip", inside_is_below=False)
        if (
            len(faces) == 0 or queries.lowest > self.level
        ):  # of what is inside everywhere, only the cube's border is left
            raise self._no_surface(queries)
        if self.refine:
            vertices = torch.cat([self._refined(piece, volume, queries) for piece in vertices.split(self.chunk)])
        dense = resolution**3
        reason = f"one layer; {queries.count:,} queries instead of {dense:,}, {dense / queries.count:.1f} times fewer."
        return Mesh(vertices, faces, "surface"), QueryReport(surface, "single", reason, queries.count, dense)

    def _volume(self, resolution: int, queries: _Queries) -> Volume:
        """The finest level, blocks near the surface only."""
        step = 1
        while -(-resolution // (2 * step)) >= _SLACK * self.coarse:
            step *= 2
        volume = Volume(resolution, step, self.level, queries, None, torch.device(self.device))
        while volume.step > 1:
            # the last step makes most of the queries, and what a margin would find there is a voxel of the result wide
            volume = volume.finer(volume.cut(self.near, margin=volume.step > 2))
        return volume

    def _refined(self, vertices: Tensor, volume: Volume, queries: _Queries) -> Tensor:
        """Vertices (V, 3) moved along their grid edges to where the field itself has the level."""
        side = volume.resolution
        place = (vertices.double() + 0.5) * side - 0.5
        axis = (place - place.round()).abs().argmax(1, keepdim=True)
        along = torch.zeros_like(vertices).scatter_(1, axis, 1.0)
        low = torch.where(along > 0, place.floor(), place.round()).int()
        within = ((low >= 0) & (low + along.int() < side)).all(1)  # others close the surface at the cube's border
        low, along = low[within], along[within]
        start = (low.float() + 0.5) / side - 0.5
        bracket = _Bracket(volume.value_at(low) - self.level, volume.value_at(low + along.int()) - self.level)
        for _ in range(self.refine):
            bracket.update(queries(start + along * (bracket.guess() / side)[:, None]) - self.level)
        moved = vertices.clone()
        moved[within] = start + along * (bracket.guess() / side)[:, None]
        return moved

    def _no_surface(self, queries: _Queries) -> BadMesh:
        low, high = queries.lowest, queries.highest
        what = (
            f"the decoded field has no surface at level {self.level:g}: its values lie between {low:.4g} and {high:.4g}"
        )
        if low > self.level:
            return BadMesh(f"{what}, all inside.", where="QueryField", hint="a higher level, or check the latents.")
        if high > self.level:
            return BadMesh(f"{what}, with less inside than a voxel.", where="QueryField", hint="a higher resolution.")
        hint = f"a level below {high:.4g}, a finer `coarse` grid where the shape is thin, or check the latents."
        return BadMesh(f"{what}, nothing inside.", where="QueryField", hint=hint)


class _Queries:
    """`values` in chunks, with a count and the range of the answers."""

    def __init__(self, values: Callable[[Tensor], Tensor], chunk: int) -> None:
        self.values, self.chunk = values, chunk
        self.count, self.lowest, self.highest = 0, math.inf, -math.inf

    def __call__(self, points: Tensor) -> Tensor:
        """(Q, 3) float32 -> (Q,) float32."""
        if len(points) == 0:
            return points.new_zeros(0)
        answers = torch.cat([self._ask(piece) for piece in points.split(self.chunk)])
        low, high = (float(end) for end in answers.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int((~torch.isfinite(answers)).sum())
            raise BadLatents(
                f"the decoded field is NaN or infinite at {bad:,} of {len(points):,} points.",
                where="QueryField",
                hint="decode with float32 weights; if it stays so, the latents or the weights are damaged.",
            )
        self.count += len(points)
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        return answers

    def _ask(self, points: Tensor) -> Tensor:
        answers = self.values(points)
        if answers.shape != (len(points),):
            raise BadArgument(f"`values` gave {tuple(answers.shape)} for {len(points)} points.", where="QueryField")
        return answers.float()


class _Bracket:
    """Roots between 0 and 1 of functions with values of different sides there, by false position (Illinois rule)."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.ends = [torch.zeros_like(low), torch.ones_like(high)]
        self.values = [low, high]
        self.kept = torch.full_like(low, -1, dtype=torch.int8)  # the end that the last update left alone

    def guess(self) -> Tensor:
        """(V,) where the chord meets zero; it keeps off the ends of the edge as marching cubes does."""
        (low, high), (at_low, at_high) = self.ends, self.values
        return (low + (high - low) * at_low / (at_low - at_high)).clamp(NUDGE, 1 - NUDGE)

    def update(self, value: Tensor) -> None:
        """Take the function's value (V,) at `guess`."""
        at = self.guess()
        is_low = (value > 0) == (self.values[0] > 0)
        for end, mine in ((0, is_low), (1, ~is_low)):
            halved = torch.where(~mine & (self.kept == end), self.values[end] / 2, self.values[end])
            self.ends[end] = torch.where(mine, at, self.ends[end])
            self.values[end] = torch.where(mine, value, halved)
        self.kept = is_low.to(torch.int8)


def _check_resolution(resolution: int) -> None:
    if resolution < 8 or resolution % 8:
        raise BadArgument(
            f"resolution {resolution} is not a positive multiple of 8.",
            where="QueryField",
            hint=f"{max(8, resolution // 8 * 8)}.",
        )
