"""Latents of many shapes, encoded once by a trained codec and streamed to a generator from then on, with their classes.

A shape may be encoded several times, each time seen a little differently (another sample of its surface, stretched, mirrored):
augmentation by re-encoding, which is as right for latents as for meshes because the codec does it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shapecodec.codecs.base import Codec
from shapecodec.codecs.lagem.inputs import PointInputs
from shapecodec.data.collection import MeshCollection, build_families
from shapecodec.data.occupancy import LARGEST_NORM
from shapecodec.data.procedural import KINDS
from shapecodec.data.shape_pools import is_inside, unit_sphere
from shapecodec.errors import BadArgument
from shapecodec.generate.batch import LatentBatch, stage_batch
from shapecodec.mesh import Mesh
from shapecodec.ops.farthest_points import farthest_points
from shapecodec.rng import rng

# Kinds of procedural meshes that bound a volume, as this codec needs it, and that people have a name for.
SOLIDS = (
    *("primitives", "extrusion", "revolution", "gear", "bolt", "chamfered", "facets", "studded", "displaced"),
    *("perforated", "chain", "buildings", "letters", "furniture", "wheel"),
)
_CHUNK = 64  # shapes that are encoded at a time
_INSIDE_POINTS, _LEAST_INSIDE = (
    1024,
    0.01,
)  # a shape with a smaller share of these points inside has no inside to speak of
_BESIDE = 0.005  # standard deviation of their distance to the surface, as of LaGeM's near points


@dataclass(frozen=True)
class LatentSourceConfig:
    """What a generator's batches are made of.

    Args:
        codec: name or folder of the codec that encodes.
        data: folder with a manifest.csv, or a packed file, of real meshes, whose categories are classes; None for none.
        split: of the folder.
        families: kinds of procedural meshes (`data.procedural.KINDS`), each a class.
        per_family: how many of each are made at the start; 0 for none.
        seed: with the step, decides everything.
        shapes: of a step for each level, coarse to fine. Coarse levels are small, so more of them cost the same.
        real: probability that a shape comes from the real meshes, where there are both.
        views: encodings of each shape that are kept; the first is of the shape as it is.
        stretch: range of each axis's factor in the other views, uniform.
        mirror: whether half of the other views are mirrored left to right.
        surface: points of each surface that views draw theirs from.
    """

    codec: str = "lagem-small"
    data: str | None = None
    split: str = "train"
    families: tuple[str, ...] = SOLIDS
    per_family: int = 256
    seed: int = 0
    shapes: tuple[int, ...] = (768, 384, 128)
    real: float = 0.5
    views: int = 16
    stretch: tuple[float, float] = (0.85, 1.15)
    mirror: bool = True
    surface: int = 16_384

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - set(KINDS))
        if unknown:
            raise BadArgument(f"unknown families {unknown}.", where="LatentSourceConfig", hint=f"{', '.join(KINDS)}.")
        if not self.shapes or min(self.shapes) < 1 or self.views < 1 or self.surface < 1 or self.per_family < 0:
            raise BadArgument("shapes, views and surface start at 1.", where="LatentSourceConfig")
        if not (0 < self.stretch[0] <= self.stretch[1] and 0 <= self.real <= 1):
            raise BadArgument("stretch is a range above 0, real a probability.", where="LatentSourceConfig")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LatentSourceConfig:
        """From what a run's config.json holds.

        Raises:
            BadArgument: a key that is not a setting, or a value out of range.
        """
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        try:
            return cls(**plain)
        except TypeError as error:
            raise BadArgument(f"not the settings of a source: {error}.", where="LatentSourceConfig") from error

    def resized(self, shapes: int) -> LatentSourceConfig:
        """With `shapes` shapes a step on the coarsest level, and the others in proportion."""
        sizes = tuple(max(1, round(count * shapes / self.shapes[0])) for count in self.shapes)
        return replace(self, shapes=sizes)


@dataclass(frozen=True, eq=False)
class LatentCache:
    """Encodings of M shapes in V views, on one device.

    Args:
        levels: (M, V, m, Z) float16 of each level, coarse to fine.
        labels: (M,) int64 rows of `classes`.
        classes: names.
        names: M names.
        real: how many of the shapes, the first ones, are real.
    """

    levels: tuple[Tensor, ...]
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    real: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bytes(self) -> int:
        """Size of the latents."""
        return sum(level.nbytes for level in self.levels)


class LatentSource:
    """Draws shapes and views out of a cache, other shapes for each level, with the random numbers of the loss.

    Args:
        cache: of the codec's latents.
        config: see `LatentSourceConfig`.

    Raises:
        BadArgument: other numbers of levels.
    """

    def __init__(self, cache: LatentCache, config: LatentSourceConfig) -> None:
        if len(config.shapes) != len(cache.levels):
            raise BadArgument(
                f"{len(config.shapes)} numbers of shapes for {len(cache.levels)} levels.", where="LatentSource"
            )
        self.cache, self.config = cache, config

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> LatentBatch:
        """Shard `rank` of `world` of a step.

        Together the shards hold the same shapes and views in the same order, for any number of them that divides; the noise is each
        shard's own, so it depends on their number.

        Raises:
            BadArgument: the shards would differ in size.
        """
        if any(count % world for count in self.config.shapes):
            raise BadArgument(
                f"{self.config.shapes} shapes a step do not divide into {world} shards.",
                where="LatentSource",
                hint="a multiple of processes x accumulation.",
            )
        here = self.cache.labels.device
        stages = []
        for index, count in enumerate(self.config.shapes):
            share = count // world
            generator = rng(self.config.seed, step, index, "latent batch", device=here)
            rows, views = (x[rank * share : (rank + 1) * share] for x in self._draw(count, generator))
            levels = [level[rows, views].to(device) for level in self.cache.levels[: index + 1]]
            numbers = rng(self.config.seed, step, rank, f"latent noise {index} of {world}", device=device)
            stages.append(stage_batch(levels, self.cache.labels[rows].to(device), numbers))
        return LatentBatch(tuple(stages))

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(count,) shapes and (count,) views."""
        cache, size = self.cache, (count,)
        device = generator.device

        def below(most: int) -> Tensor:
            return torch.randint(max(most, 1), size, generator=generator, device=device)

        one, other, views = below(cache.real), below(len(cache) - cache.real), below(cache.levels[0].shape[1])
        real = torch.rand(size, generator=generator, device=device) < self.config.real
        if cache.real in (0, len(cache)):
            return (one if cache.real else other), views
        return torch.where(real, one, other + cache.real), views


def open_latent_source(
    config: LatentSourceConfig, codec: Codec, *, device: torch.device | str = "cpu", workers: int = 1
) -> LatentSource:
    """Makes and reads the meshes, leaves out those without an inside (with a warning), and encodes all views of the others.

    With `workers` > 1 meshes are decoded and made in fresh processes: call it under `if __name__ == "__main__":`.

    Raises:
        BadFile: the data are missing or damaged. BadArgument: no shapes are asked for, or none has an inside.
    """
    parts = []
    if config.data is not None:
        parts.append(MeshCollection.from_path(config.data, config.split, workers=workers))
    if config.families and config.per_family:
        parts.append(build_families(config.families, config.per_family, config.seed, workers))
    if not parts:
        raise BadArgument("neither real nor procedural shapes were asked for.", where="LatentSourceConfig")
    real = len(parts[0]) if config.data is not None else 0
    return LatentSource(encode_all(MeshCollection.joined(parts).to(device), codec, config, real=real), config)


@torch.inference_mode()
def encode_all(meshes: MeshCollection, codec: Codec, config: LatentSourceConfig, *, real: int) -> LatentCache:
    """The latents of all meshes that have an inside, in all views, on the codec's device.

    Args:
        meshes: on the codec's device.
        codec: of kind lagem.
        config: views, stretch, mirror, surface and seed are used.
        real: how many of the meshes, the first ones, count as real.

    Raises:
        BadArgument: another kind of codec, or no mesh with an inside.
    """
    if codec.kind != "lagem":
        raise BadArgument(f"a cache of '{codec.kind}' latents is not made here.", where="latent cache", hint="lagem.")
    surfaces: list[Tensor] = []
    found: list[Tensor] = []
    for index in range(len(meshes)):  # nothing in here waits for the device
        mesh = unit_sphere(meshes.mesh(index))
        generator = rng(config.seed, purpose=f"latent cache {mesh.name}", device=mesh.vertices.device)
        surface, faces = mesh.sample(config.surface, generator)
        surfaces.append(surface)
        found.append(_inside_share(mesh, surface[:_INSIDE_POINTS], faces[:_INSIDE_POINTS], generator))
    kept = (torch.stack(found) >= _LEAST_INSIDE).nonzero()[:, 0].tolist()
    if not kept:
        raise BadArgument(f"none of {len(meshes)} shapes has an inside.", where="latent cache", hint="closed meshes.")
    if len(kept) < len(meshes):
        missing = sorted(set(range(len(meshes))) - set(kept))
        some = ", ".join(meshes.entries[i].name for i in missing[:5]) + (", ..." if len(missing) > 5 else "")
        warnings.warn(
            f"{len(missing)} of {len(meshes)} meshes have no inside and are left out: {some}.",
            RuntimeWarning,
            stacklevel=2,
        )
    names = tuple(meshes.entries[i].name for i in kept)
    categories = [meshes.entries[i].category or "other" for i in kept]
    classes = tuple(sorted(set(categories)))
    labels = torch.tensor([classes.index(name) for name in categories], device=codec.device)
    levels = _encoded(torch.stack([surfaces[i] for i in kept]), codec, config)
    return LatentCache(levels, labels, classes, names, sum(i < real for i in kept))


def _inside_share(mesh: Mesh, surface: Tensor, faces: Tensor, generator: torch.Generator) -> Tensor:
    """0-dim: share of points beside the surface that are inside; half of them are for a solid, none for a sheet."""
    beside = torch.randn(len(surface), 1, generator=generator, device=surface.device) * _BESIDE
    return is_inside(surface + beside * mesh.face_normals()[faces], mesh).float().mean()


def _encoded(surfaces: Tensor, codec: Any, config: LatentSourceConfig) -> tuple[Tensor, ...]:
    """(M, V, m, Z) float16 of each level from stored surface points (M, S, 3) in the paper's frame."""
    views = []
    for view in range(config.views):
        chunks = []
        for start in range(0, len(surfaces), _CHUNK):
            chunks.append(_encoded_chunk(surfaces[start : start + _CHUNK], start, view, codec, config))
        views.append([torch.cat(level) for level in zip(*chunks, strict=True)])
    return tuple(torch.stack(level, 1) for level in zip(*views, strict=True))


def _encoded_chunk(surface: Tensor, start: int, view: int, codec: Any, config: LatentSourceConfig) -> Sequence[Tensor]:
    """One view of a few shapes: (B, m, Z) float16 of each level."""
    generator = rng(config.seed, start, view, "latent view", device=surface.device)
    draw = torch.rand(len(surface), 5, generator=generator, device=surface.device)
    count = max(codec.config.points, codec.tokens[-1])
    if count > surface.shape[1]:
        raise BadArgument(f"the codec reads {count} points, {surface.shape[1]} are stored.", where="LatentSourceConfig")
    # stored points are independent of each other, so a window of them is as random as any choice
    window = (draw[:, :1] * surface.shape[1]).long() + torch.arange(count, device=surface.device)
    points = surface.gather(1, (window % surface.shape[1])[..., None].expand(-1, -1, 3))
    if view:
        low, high = config.stretch
        factor = low + (high - low) * draw[:, 1:4]
        sign = torch.where((draw[:, 4] < 0.5) & config.mirror, -1.0, 1.0)
        factor[:, 0] *= sign
        corners = surface * factor[:, None]
        middle = (corners.amax(1) + corners.amin(1)) / 2  # the box is centred again, as the codec's frame asks
        radius = (corners - middle[:, None]).norm(dim=2).amax(1) / LARGEST_NORM
        points = (points * factor[:, None] - middle[:, None]) / radius[:, None, None]
    inputs = PointInputs(points, farthest_points(points, codec.tokens[-1]), codec.config.resolution)
    shapes = len(surface)
    return [level.feats.view(shapes, -1, level.feats.shape[1]).half() for level in codec.encode(inputs).levels]
