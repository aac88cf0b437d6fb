"""OccupancySource: batches of surface points and labelled queries for LaGeM and VecSet, each a function of (seed, step, rank).

Nothing in a batch reads a number back from the device, loops over shapes or asks for labels: those are stored (`data.shape_pools`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shapecodec.codecs.lagem.inputs import OccupancyBatch, PointInputs
from shapecodec.data.bends import Bends
from shapecodec.data.collection import MeshCollection, procedural_collections
from shapecodec.data.pool_file import data_digest, pools_key, stored_pools
from shapecodec.data.shape_pools import PoolSizes, ShapePools, build_shape_pools
from shapecodec.errors import BadArgument
from shapecodec.ops.farthest_points import farthest_points
from shapecodec.rng import rng

LARGEST_NORM = (
    0.999  # of an augmented shape's stored surface points; what lies between them stays within the unit sphere
)


@dataclass(frozen=True)
class OccupancySourceConfig:
    """What a batch is made of.

    Args:
        data: folder with a manifest.csv, or a file that `pack_folder` wrote, of real meshes; None for none.
        split: of the folder.
        procedural: how many procedural meshes are made at the start; 0 for none.
        seed: with the step, decides everything.
        shapes: of a step, over all of its shards.
        points: surface points of a shape, drawn from the stored ones without repetition.
        latents: of them, the vectors of the finest level, farthest first.
        volume: queries of a shape in the volume.
        near: queries of a shape near the surface.
        balanced: half of the volume queries inside (appendix D); else as they fall in the ball of radius sqrt(3).
        normals: whether the codec reads normals.
        distances: whether queries carry unsigned distances; they change under `stretch` and `bend`, which must be (1, 1) and 0.
        rotate: probability of a rotation by three angles of N(0, 1) radians (eq. 13).
        stretch: range of each axis's factor, uniform.
        flips: whether axes are permuted and mirrored.
        bend: probability of a bend (`data.bends`), before all else; not in the papers.
        real: probability that a shape comes from the real collection, where there are both.
        resolution: voxels an axis that the inputs name; nothing in a batch depends on it.
        stored: sizes of the pools.
    """

    data: str | None = None
    split: str = "train"
    procedural: int = 3000
    seed: int = 0
    shapes: int = 64
    points: int = 2048
    latents: int = 512
    volume: int = 1024
    near: int = 1024
    balanced: bool = True
    normals: bool = False
    distances: bool = False
    rotate: float = 0.5
    stretch: tuple[float, float] = (0.75, 1.25)
    flips: bool = True
    bend: float = 0.0
    real: float = 0.6
    resolution: int = 256
    stored: PoolSizes = field(default_factory=PoolSizes)

    def __post_init__(self) -> None:
        if min(self.shapes, self.latents, self.volume, self.near) < 1 or self.volume % 2:
            raise BadArgument("sizes start at 1, and volume is even.", where="OccupancySourceConfig")
        if not self.latents <= self.points <= self.stored.surface:
            raise BadArgument(
                f"{self.latents} latents of {self.points} points of {self.stored.surface} stored ones: each must fit the next.",
                where="OccupancySourceConfig",
            )
        if not (
            0 < self.stretch[0] <= self.stretch[1]
            and all(0 <= share <= 1 for share in (self.rotate, self.real, self.bend))
        ):
            raise BadArgument(
                "stretch is a range above 0; rotate, bend and real are probabilities.", where="OccupancySourceConfig"
            )
        if self.distances and (self.stretch != (1.0, 1.0) or self.bend):
            raise BadArgument(
                f"stored distances are wrong for stretched or bent shapes; stretch is {self.stretch}, bend {self.bend}.",
                where="OccupancySourceConfig",
                hint="stretch=(1.0, 1.0) and bend=0.0, or distances=False.",
            )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> OccupancySourceConfig:
        """From what a run's config.json holds.

        Raises:
            BadArgument: a key that is not a setting, or a value out of range.
        """
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        try:
            return cls(**plain | {"stored": PoolSizes(**plain.get("stored", {}))})
        except TypeError as error:
            raise BadArgument(f"not the settings of a source: {error}.", where="OccupancySourceConfig") from error


class Views(NamedTuple):
    """How B shapes are seen.

    Args:
        points: (B, 3, 3) float32; a point p becomes points @ p, after the bend.
        normals: (B, 3, 3) float32, the inverse transpose up to a factor.
        scale: (B,) float32, by which distances grow where no axis is stretched and nothing bent.
        bends: or None for shapes that keep straight.
    """

    points: Tensor
    normals: Tensor
    scale: Tensor
    bends: Bends | None = None

    def moved(self, points: Tensor) -> Tensor:
        """Points (B, N, 3) as they are seen."""
        return moved(points if self.bends is None else self.bends.points(points), self.points)

    def turned(self, normals: Tensor, points: Tensor) -> Tensor:
        """Unit normals (B, N, 3) at points (B, N, 3), which were not moved yet, as they are seen; 0 stays 0."""
        bent = normals if self.bends is None else self.bends.normals(normals, points)
        return torch.nn.functional.normalize(moved(bent, self.normals), dim=2)


class _Picks(NamedTuple):
    """Rows of the pools for B shapes: surface (B, N), inside and outside (B, V), near (B, W), and positive (B, V) bool."""

    surface: Tensor
    inside: Tensor
    outside: Tensor
    positive: Tensor
    near: Tensor


class OccupancySource:
    """Draws shapes, points and queries out of pools, and augments them on the pools' device.

    Args:
        real: of meshes from files, or None.
        procedural: of generated meshes, or None; of the same sizes and on the same device.
        config: see `OccupancySourceConfig`.

    Raises:
        BadArgument: no pools, or pools without the distances that the configuration asks for.
    """

    def __init__(self, real: ShapePools | None, procedural: ShapePools | None, config: OccupancySourceConfig) -> None:
        given = [pools for pools in (real, procedural) if pools is not None]
        if not given:
            raise BadArgument("neither real nor procedural shapes were given.", where="OccupancySource")
        if config.distances and any(pools.distances is None for pools in given):
            raise BadArgument(
                "the pools hold no distances.", where="OccupancySource", hint="build_shape_pools(distances=True)."
            )
        self.pools, self.config = ShapePools.joined(given), config
        self.counts = 0 if real is None else len(real), 0 if procedural is None else len(procedural)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the shapes without an inside, of which no batch has any."""
        return self.pools.left_out

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> OccupancyBatch:
        """Shard `rank` of `world` of a step's shapes: the same shapes in the same order, however many shards there are.

        Raises:
            BadArgument: the shards would differ in size.
        """
        config, here = self.config, self.pools.device
        if config.shapes % world:
            raise BadArgument(
                f"{config.shapes} shapes a step do not divide into {world} shards.",
                where="OccupancySource",
                hint="a multiple of processes x accumulation.",
            )
        share = config.shapes // world
        rows = slice(rank * share, (rank + 1) * share)
        generator = rng(config.seed, step, purpose="occupancy batch", device=here)
        shapes = self._shapes(generator)
        picks = self._picks(shapes, generator, rows)
        return self._assembled(shapes[rows], picks, self._views(shapes, generator, rows)).to(device)

    def plain(self, shapes: Sequence[int]) -> OccupancyBatch:
        """These shapes of the pools as they are, for validation: not augmented, the same points and queries at every call."""
        index = torch.tensor(shapes, dtype=torch.int64, device=self.pools.device)
        picks = self._picks(index, rng(self.config.seed, purpose="plain batch", device=index.device), slice(None))
        eye = torch.eye(3, device=index.device).expand(len(index), 3, 3)
        return self._assembled(index, picks, Views(eye, eye, torch.ones(len(index), device=index.device)))

    def _shapes(self, generator: torch.Generator) -> Tensor:
        """(shapes,) int64 rows of the pools, real ones first there."""
        count, device = (self.config.shapes,), generator.device
        one, other = (torch.randint(max(n, 1), count, generator=generator, device=device) for n in self.counts)
        real = torch.rand(count, generator=generator, device=device) < self.config.real
        if 0 in self.counts:
            return one if self.counts[0] else other
        return torch.where(real, one, other + self.counts[0])

    def _picks(self, shapes: Tensor, generator: torch.Generator, rows: slice) -> _Picks:
        """What is drawn for `shapes` (B,), of which only `rows` are used: draws must not depend on the shards."""
        config, pools = self.config, self.pools

        def uniform(count: int) -> Tensor:
            return torch.rand(len(shapes), count, generator=generator, device=pools.device)[rows]

        def places(most: int, count: int) -> Tensor:
            return torch.randint(most, (len(shapes), count), generator=generator, device=pools.device)[rows]

        # stored points are independent of each other, so a window of them is as random as any choice, and needs no sort
        window = torch.arange(config.points, device=pools.device)
        surface = (places(pools.surface.shape[1], 1) + window) % pools.surface.shape[1]
        inside, outside = (places(pool.shape[1], config.volume) for pool in (pools.inside, pools.outside))
        near = places(pools.near.shape[1], config.near)
        if config.balanced:
            positive = torch.arange(config.volume, device=pools.device) < config.volume // 2
            positive = positive.expand(len(near), -1)
        else:
            positive = uniform(config.volume) < pools.share[shapes[rows], None]
        return _Picks(surface, inside, outside, positive, near)

    def _views(self, shapes: Tensor, generator: torch.Generator, rows: slice) -> Views:
        """Bend, stretch along the axes, renormalise, permute and mirror the axes, rotate (appendix B), in this order."""
        config, count = self.config, len(shapes)

        def draw(size: int, *, normal: bool = False) -> Tensor:
            sample = torch.randn if normal else torch.rand
            return sample(count, size, generator=generator, device=generator.device)[rows]

        low, high = config.stretch
        stretch = low + (high - low) * draw(3)
        order, mirror = draw(3).argsort(dim=1, stable=True), draw(3) < 0.5
        angles, turned = draw(3, normal=True), draw(1) < config.rotate
        bends = Bends.of(draw(13), config.bend) if config.bend else None
        surface = self.pools.surface[shapes[rows]]
        surface = surface if bends is None else bends.points(surface)
        scale = LARGEST_NORM / (surface * stretch[:, None]).norm(dim=2).amax(1)
        eye = torch.eye(3, device=generator.device)
        linear = eye.expand(len(stretch), 3, 3)
        if config.flips:
            linear = eye[order] * torch.where(mirror, -1.0, 1.0)[:, :, None]
        linear = product(rotations(torch.where(turned, angles, 0.0)), linear)
        return Views(linear * (stretch * scale[:, None])[:, None], linear / stretch[:, None], scale, bends)

    def _assembled(self, shapes: Tensor, picks: _Picks, views: Views) -> OccupancyBatch:
        """The batch of these picks, seen so."""
        config, pools, rows = self.config, self.pools, shapes[:, None]
        stored = pools.surface[rows, picks.surface]
        points, normals = views.moved(stored), None
        if config.normals:
            normals = views.turned(pools.normals[rows, picks.surface].float(), stored)
        positive = picks.positive
        volume = torch.where(positive[..., None], pools.inside[rows, picks.inside], pools.outside[rows, picks.outside])
        queries = views.moved(torch.cat([volume, pools.near[rows, picks.near]], 1))
        inside = torch.cat([positive, pools.near_inside[rows, picks.near]], 1)
        distance = None
        if config.distances:
            assert pools.distances is not None
            first, second = pools.inside.shape[1], pools.inside.shape[1] + pools.outside.shape[1]
            column = torch.cat([torch.where(positive, picks.inside, picks.outside + first), picks.near + second], 1)
            distance = pools.distances[rows, column] * views.scale[:, None]
        order = farthest_points(points, config.latents)
        inputs = PointInputs(points, order, config.resolution, normals)
        return OccupancyBatch(inputs, queries, inside, config.volume, distance)


def rotations(angles: Tensor) -> Tensor:
    """(B, 3, 3) Rz(a) Ry(b) Rx(c) of angles (B, 3) = (a, b, c) in radians: yaw, pitch and roll of eq. 13."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(1), angles.sin().unbind(1)
    entries = [
        *(ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        *(sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        *(-sb, cb * sc, cb * cc),
    ]
    return torch.stack(entries, 1).view(-1, 3, 3)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Products of matrices (B, 3, 3); elementwise, because TF32, where it is switched on, would round them to 10 bits."""
    return (left[:, :, :, None] * right[:, None]).sum(2)


def moved(points: Tensor, matrix: Tensor) -> Tensor:
    """(B, N, 3) matrix (B, 3, 3) times points (B, N, 3); elementwise, as `product`."""
    return (points[:, :, None] * matrix[:, None]).sum(3)


def open_occupancy_source(
    config: OccupancySourceConfig,
    *,
    device: torch.device | str = "cpu",
    workers: int = 1,
    pools: str | Path | None = None,
) -> OccupancySource:
    """The source that a configuration describes, its pools on `device`; warns of the real meshes that have no inside.

    With `workers` > 1 meshes are decoded and made in fresh processes: call it under `if __name__ == "__main__":`.

    Args:
        config: of the source.
        device: of the pools.
        workers: processes that decode and make meshes.
        pools: a folder in which the pools are kept, and found by the next one who asks for the same (`data.pool_file`).

    Raises:
        BadFile: the data or the stored pools are missing or damaged. BadArgument: no shapes are asked for, or none of them has
            an inside.
    """
    kind = torch.device(device).type
    common = {"sizes": asdict(config.stored), "seed": config.seed, "distances": config.distances, "drawn on": kind}

    def kept(make: Callable[[], ShapePools], **settings: Any) -> ShapePools:
        return make() if pools is None else stored_pools(pools, pools_key(common | settings), make, device)

    real = procedural = None
    if config.data is not None:
        real = kept(
            lambda: _real_pools(config, device, workers),
            data="" if pools is None else data_digest(config.data),
            split=config.split if Path(config.data).is_dir() else "",
        )
        if real.left_out:
            names = ", ".join(real.left_out[:5]) + (", ..." if len(real.left_out) > 5 else "")
            warnings.warn(
                f"{len(real.left_out)} of {len(real) + len(real.left_out)} meshes of {config.data} have no inside and are left "
                f"out: {names}.",
                RuntimeWarning,
                stacklevel=2,
            )
    if config.procedural:
        procedural = kept(lambda: _procedural_pools(config, device, workers), procedural=config.procedural)
    return OccupancySource(real, procedural, config)


def _real_pools(config: OccupancySourceConfig, device: torch.device | str, workers: int) -> ShapePools:
    assert config.data is not None
    meshes = MeshCollection.from_path(config.data, config.split, workers=workers)
    return build_shape_pools(meshes.to(device), config.stored, config.seed, distances=config.distances)


def _procedural_pools(config: OccupancySourceConfig, device: torch.device | str, workers: int) -> ShapePools:
    """Labelled in parts, while the processes make the next ones."""
    parts = (part.to(device) for part in procedural_collections(config.procedural, config.seed, workers))
    return build_shape_pools(parts, config.stored, config.seed, distances=config.distances)
