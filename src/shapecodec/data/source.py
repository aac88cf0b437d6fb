"""BlockSource: training batches of sparse blocks, each a function of (seed, step, rank), filled to a token budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from shapecodec.data.augment import Augment, augmented, together
from shapecodec.data.collection import MeshCollection, checked_mesh
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.rng import rng

BLOCK = 8  # voxels along a block's edge
REACH_VOX = 6  # halo of 2 voxels + truncation of 4: how far a block's 12^3 patch looks beyond the block
# Blocks of area (8/N)^2 that a surface of unit area activates at activity 4 voxels: 1 for the slab's thickness plus
# 1.5, the mean projected width of a unit cube.
BLOCKS_PER_AREA = 2.5


class BlockInputs(Protocol):
    """What a block codec's `prepare` returns, as far as packing needs to know it."""

    grid: SparseGrid

    @property
    def tokens(self) -> int:
        """Blocks in all items."""
        ...

    def crop(self, rows: Tensor) -> Any:
        """Only these rows (K,) int64, ascending; absolute coordinates and halos stay."""
        ...

    @staticmethod
    def pack(items: Sequence[Any]) -> Any:
        """Items of one resolution as one batch."""
        ...


class Prepare(Protocol):
    """`Codec.prepare`: from a mesh in the unit cube to block inputs on the mesh's device."""

    def __call__(self, mesh: Mesh, rng: torch.Generator | None = None, *, resolution: int | None = None) -> Any:
        """Blocks and values of one mesh."""
        ...


@dataclass(frozen=True)
class PoolConfig:
    """How batches are drawn from crops of many shapes; see `data.pool.CropPool`.

    Args:
        crop: blocks of a crop, a run in Morton order and so a compact region; smaller shapes stay whole.
        crops: crops of a batch, each of another shape.
        kept: crops kept of each shape.
        capacity: shapes held on the device for each shard of a step; a crop of 512 blocks takes 1.8 MB, so 1500 shapes of 8
            crops at most 21 GB, and twice that with two passes accumulated.
        fresh: new shapes a step; each replaces the oldest.
    """

    crop: int = 512
    crops: int = 16
    kept: int = 8
    capacity: int = 1500
    fresh: int = 1

    def __post_init__(self) -> None:
        if min(self.crop, self.crops, self.kept, self.capacity, self.fresh) < 1 or self.crops > self.capacity:
            raise BadArgument(f"{self} asks for nothing, or for more crops than shapes.", where="PoolConfig")


@dataclass(frozen=True)
class SourceConfig:
    """What a batch is made of.

    Args:
        data: folder with a manifest.csv, or a file that `pack_folder` wrote, of real meshes; None for none.
        split: of the folder.
        procedural: how many procedural meshes are made at the start; 0 for none.
        seed: with step and rank, decides everything.
        budget: most tokens (blocks) a batch.
        resolutions: (voxels an axis, probability) pairs; one is drawn a step, the same on every rank.
        real: probability that a mesh comes from the real collection, where there are both.
        pair: probability that a second mesh is laid into the same cube.
        filled: part of the budget at which packing stops.
        most_items: most meshes a batch.
        augment: how shapes are turned, stretched and placed.
        pool: draw batches from crops of many shapes; then `budget` caps a shape. None trains on whole shapes.
    """

    data: str | None = None
    split: str = "train"
    procedural: int = 2000
    seed: int = 0
    budget: int = 16_384
    resolutions: tuple[tuple[int, float], ...] = ((256, 0.35), (512, 0.45), (1024, 0.2))
    real: float = 0.6
    pair: float = 0.1
    filled: float = 0.9
    most_items: int = 32
    augment: Augment = field(default_factory=Augment)
    pool: PoolConfig | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SourceConfig:
        """From what a run's config.json holds.

        Raises:
            BadArgument: a key that is not a setting.
        """
        values = {key: tuples(value) for key, value in values.items()}
        try:
            augment = Augment(**{key: tuples(value) for key, value in values.pop("augment", {}).items()})
            pool = values.pop("pool", None)
            return cls(**values, augment=augment, pool=None if pool is None else PoolConfig(**pool))
        except TypeError as error:
            raise BadArgument(f"not the settings of a source: {error}.", where="SourceConfig") from error


def tuples(value: Any) -> Any:
    """JSON's lists as tuples, at any depth."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


class BlockSource:
    """Draws meshes, augments them on the device, prepares them and packs their blocks up to the budget.

    Real meshes are drawn in proportion to the square root of their face counts, so that detailed ones come more often;
    procedural ones evenly. A mesh with more blocks than room is cropped to those around a random place (Chebyshev
    distance): windows and neighbours stay whole inside, coordinates stay absolute, and only the crop's border lacks
    neighbours.

    Args:
        prepare: `Codec.prepare`.
        real: meshes from files, or None.
        procedural: generated meshes, or None.
        config: see `SourceConfig`.

    Raises:
        BadArgument: no collection, or a configuration out of range.
    """

    def __init__(
        self, prepare: Prepare, real: MeshCollection | None, procedural: MeshCollection | None, config: SourceConfig
    ) -> None:
        collections = [c for c in (real, procedural) if c is not None]
        if not collections:
            raise BadArgument("neither real nor procedural meshes were given.", where="BlockSource")
        if config.budget < 1 or not 0 < config.filled <= 1 or not config.resolutions:
            raise BadArgument("budget, filled and resolutions must be positive.", where="BlockSource")
        self.prepare, self.real, self.procedural, self.config = prepare, real, procedural, config
        self._real_weights = None if real is None else real.face_counts().double().sqrt().cumsum(0)

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> Any:
        """The packed inputs of a step, up to `budget` tokens for each rank; a function of (step, rank) alone."""
        config, resolution = self.config, self.resolution(step)
        items: list[Any] = []
        room = config.budget
        for number in range(config.most_items):
            generator = rng(config.seed, step, rank, f"mesh {number}")
            mesh = self._draw(generator, device)
            item = self._fit(mesh, generator, resolution, room)
            if item is not None and item.tokens:
                items.append(item)
                room -= item.tokens
            if room < (1 - config.filled) * config.budget:
                break
        if not items:
            raise BadArgument(
                f"none of {config.most_items} meshes has a block at resolution {resolution}.", where="BlockSource"
            )
        return type(items[0]).pack(items)

    def resolution(self, step: int) -> int:
        """Voxels an axis of every item of a step."""
        sizes, weights = zip(*self.config.resolutions, strict=True)
        draw = torch.multinomial(torch.tensor(weights), 1, generator=rng(self.config.seed, step, purpose="resolution"))
        return sizes[int(draw)]

    def _draw(self, generator: torch.Generator, device: torch.device | str) -> Mesh:
        count = 2 if float(torch.rand((), generator=generator)) < self.config.pair else 1
        views = []
        for _ in range(count):
            collection, index = self._pick(generator)
            views.append(augmented(collection.mesh(index, device), generator, self.config.augment))
        return views[0] if count == 1 else together(views)

    def _pick(self, generator: torch.Generator) -> tuple[MeshCollection, int]:
        which, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if self.real is not None and (self.procedural is None or which < self.config.real):
            weights = self._real_weights
            assert weights is not None
            index = int(torch.searchsorted(weights, place * float(weights[-1]), right=True))
            return self.real, min(index, len(self.real) - 1)
        assert self.procedural is not None
        return self.procedural, min(int(place * len(self.procedural)), len(self.procedural) - 1)

    def _fit(self, mesh: Mesh, generator: torch.Generator, resolution: int, room: int) -> Any:
        """The mesh's blocks, or `room` of them around a random place of its surface."""
        box = None
        areas = mesh.face_areas().double().cumsum(0)
        if float(areas[-1]) * BLOCKS_PER_AREA * (resolution / BLOCK) ** 2 > 1.5 * room:
            # Distances far outside the crop would be thrown away: only triangles near it are looked at.
            half = 0.5 * math.sqrt(1.5 * room / BLOCKS_PER_AREA) * BLOCK / resolution + REACH_VOX / resolution
            centre = _surface_point(mesh, areas, generator)
            box = centre - half, centre + half
            mesh = _near(mesh, *box)
        inputs = self.prepare(mesh, generator, resolution=resolution)
        place = float(torch.rand((), generator=generator))
        if box is not None:
            inputs = inputs.crop(_inside(inputs.grid, resolution, *box))
        if inputs.tokens > room:
            inputs = inputs.crop(rows_around(inputs.grid, int(place * inputs.tokens), room))
        return inputs


def rows_around(grid: SparseGrid, row: int, count: int) -> Tensor:
    """(count,) ascending rows of the blocks nearest to a row's block by Chebyshev distance; ties by Morton order."""
    distance = (grid.coords - grid.coords[row]).abs().amax(1)
    return torch.argsort(distance, stable=True)[:count].sort().values


def _surface_point(mesh: Mesh, areas: Tensor, generator: torch.Generator) -> Tensor:
    """(3,) a point of the surface, uniform by area; `areas` (F,) is their running sum."""
    draw = torch.rand(3, generator=generator, dtype=torch.float64).to(areas.device)
    face = torch.searchsorted(areas, draw[:1] * areas[-1], right=True).clamp_(max=len(areas) - 1)
    root = draw[1].sqrt().float()
    weights = torch.stack([1 - root, root * (1 - draw[2].float()), root * draw[2].float()])
    return (mesh.vertices[mesh.faces[face[0]]] * weights[:, None]).sum(0)


def _near(mesh: Mesh, low: Tensor, high: Tensor) -> Mesh:
    """The triangles whose boxes meet the box from low to high (3,), (3,)."""
    corners = mesh.vertices[mesh.faces]
    meets = (corners.amax(1) >= low).all(1) & (corners.amin(1) <= high).all(1)
    return checked_mesh(mesh.vertices, mesh.faces[meets], mesh.name)


def _inside(grid: SparseGrid, resolution: int, low: Tensor, high: Tensor) -> Tensor:
    """Rows of the blocks whose patches depend on nothing outside the box from low to high."""
    first = grid.coords.float() * (BLOCK / resolution) - 0.5
    reach = REACH_VOX / resolution
    inside = ((first - reach >= low) & (first + BLOCK / resolution + reach <= high)).all(1)
    return inside.nonzero()[:, 0]
