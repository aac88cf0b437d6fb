"""ViewSource: shapes and cameras for codecs that learn by looking, each batch a function of (seed, step).

All meshes lie on the device, with faces that agree on the outside; a batch is a few launches, without disk, host or waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from shapecodec.camera import Camera
from shapecodec.codecs.focusing.orient import oriented
from shapecodec.codecs.focusing.views import CameraConfig, draw_cameras
from shapecodec.data.augment import Augment, augmented
from shapecodec.data.collection import Arrays, MeshCollection, build_pool, spread
from shapecodec.data.source import tuples
from shapecodec.errors import BadArgument
from shapecodec.io.parse.weld import drop_degenerate, drop_unused, weld_exact
from shapecodec.mesh import Mesh
from shapecodec.rng import rng


@dataclass(frozen=True)
class ViewSourceConfig:
    """What a batch is made of.

    Args:
        data: folder with a manifest.csv, or a file that `pack_folder` wrote, of real meshes; None for none.
        split: of the folder.
        procedural: how many procedural meshes are made at the start; 0 for none.
        seed: with the step, decides everything.
        shapes: of a step, over all of its shards; each is seen by one camera.
        resolutions: (voxels an axis of the output, probability) pairs; one is drawn a step.
        real: probability that a shape comes from the real collection, where there are both.
        augment: how shapes are turned, stretched, mirrored and placed in the cube.
        cameras: where they are seen from.
        size: pixels of a side that cameras name.
    """

    data: str | None = None
    split: str = "train"
    procedural: int = 2000
    seed: int = 0
    shapes: int = 1
    resolutions: tuple[tuple[int, float], ...] = ((512, 1.0),)
    real: float = 0.7
    augment: Augment = field(default_factory=Augment)
    cameras: CameraConfig = field(default_factory=CameraConfig)
    size: int = 518

    def __post_init__(self) -> None:
        if min(self.shapes, self.size, *(size for size, _ in self.resolutions)) < 1 or not 0 <= self.real <= 1:
            raise BadArgument("sizes start at 1, and real is a probability.", where="ViewSourceConfig")
        if not self.resolutions or min(weight for _, weight in self.resolutions) <= 0:
            raise BadArgument(f"resolutions {self.resolutions} need weights above 0.", where="ViewSourceConfig")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ViewSourceConfig:
        """From what a run's config.json holds.

        Raises:
            BadArgument: a key that is not a setting, or a value out of range.
        """
        plain = {key: tuples(value) for key, value in values.items()}
        parts = {"augment": Augment, "cameras": CameraConfig}
        try:
            nested: dict[str, Any] = {
                name: kind(**{key: tuples(value) for key, value in plain.pop(name, {}).items()})
                for name, kind in parts.items()
            }
            return cls(**plain, **nested)
        except TypeError as error:
            raise BadArgument(f"not the settings of a source: {error}.", where="ViewSourceConfig") from error


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """Shapes and who looks at them.

    Args:
        meshes: B in the unit cube, on one device; faces agree on the outside, and no two vertices are at one place.
        cameras: B, square.
        resolution: voxels an axis of the output.
    """

    meshes: tuple[Mesh, ...]
    cameras: tuple[Camera, ...]
    resolution: int


class ViewSource:
    """Draws shapes out of collections that lie on the device, augments them there and places a camera for each.

    Real meshes are drawn in proportion to the square root of their face counts, so that detailed ones come more often;
    procedural ones evenly.

    Args:
        real: of meshes from files, or None.
        procedural: of generated meshes, or None. Both as `prepared_collection` leaves them.
        config: see `ViewSourceConfig`.

    Raises:
        BadArgument: no collection.
    """

    def __init__(
        self, real: MeshCollection | None, procedural: MeshCollection | None, config: ViewSourceConfig
    ) -> None:
        if real is None and procedural is None:
            raise BadArgument("neither real nor procedural meshes were given.", where="ViewSource")
        self.real, self.procedural, self.config = real, procedural, config
        self._reach = None if real is None else real.face_counts().double().sqrt().cumsum(0)

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> ViewBatch:
        """Shard `rank` of `world` of a step's shapes: the same shapes in the same order, however many shards there are.

        Raises:
            BadArgument: the shards would differ in size.
        """
        config = self.config
        if config.shapes % world:
            raise BadArgument(
                f"{config.shapes} shapes a step do not divide into {world} shards.",
                where="ViewSource",
                hint="a multiple of processes x accumulation.",
            )
        share = config.shapes // world
        meshes: list[Mesh] = []
        cameras: list[Camera] = []
        for number in range(rank * share, (rank + 1) * share):
            generator = rng(config.seed, step, number, "view")
            meshes.append(augmented(self._drawn(generator, device), generator, config.augment, keep_outside=True))
            cameras += draw_cameras(1, generator, config.size, config.cameras)
        return ViewBatch(tuple(meshes), tuple(cameras), self.resolution(step))

    def resolution(self, step: int) -> int:
        """Voxels an axis of the output of every shape of a step."""
        sizes, weights = zip(*self.config.resolutions, strict=True)
        draw = torch.multinomial(torch.tensor(weights), 1, generator=rng(self.config.seed, step, purpose="resolution"))
        return sizes[int(draw)]

    def _drawn(self, generator: torch.Generator, device: torch.device | str) -> Mesh:
        """A mesh in its own frame."""
        which, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if self.procedural is None or (self.real is not None and which < self.config.real):
            assert self.real is not None and self._reach is not None
            index = int(torch.searchsorted(self._reach, place * float(self._reach[-1]), right=True))
            return self.real.mesh(min(index, len(self.real) - 1), device)
        return self.procedural.mesh(min(int(place * len(self.procedural)), len(self.procedural) - 1), device)


def prepared_collection(meshes: MeshCollection, workers: int = 1) -> MeshCollection:
    """The meshes with one vertex a place, no degenerate or unused parts, and faces that agree (`oriented`); on the CPU.

    A mesh of 100 thousand faces takes 0.2 s, so `workers` processes share them: with more than one, call it under
    `if __name__ == "__main__":`.

    Raises:
        BadMesh: nothing is left of a mesh.
    """
    jobs = [meshes.mesh(index, "cpu").numpy() for index in range(len(meshes))]
    return MeshCollection.from_arrays(spread(_prepared, jobs, workers), meshes.entries)


def _prepared(job: Arrays) -> Arrays:
    vertices, faces = weld_exact(*job)
    vertices, faces = drop_unused(vertices, drop_degenerate(faces))
    points, triangles = oriented(Mesh.from_arrays(vertices, faces)).numpy()
    return points, triangles.astype(np.int32)


def open_view_source(config: ViewSourceConfig, *, device: torch.device | str = "cpu", workers: int = 1) -> ViewSource:
    """The source that a configuration describes, its meshes resident on `device`.

    With `workers` > 1 meshes are decoded, made and oriented in fresh processes: call it under `if __name__ == "__main__":`.

    Raises:
        BadFile: the data are missing or damaged. BadArgument: neither real nor procedural meshes are asked for.
    """
    real = procedural = None
    if config.data is not None:
        loaded = MeshCollection.from_path(config.data, config.split, workers=workers)
        real = prepared_collection(loaded, workers).to(device)
    if config.procedural:
        made = build_pool(config.procedural, config.seed, workers)
        procedural = prepared_collection(made, workers).to(device)
    return ViewSource(real, procedural, config)
