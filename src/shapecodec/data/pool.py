"""CropPool: training batches made of many small crops of many shapes, most of them used more than once.

Deriving a field costs as much as a training step, and neighbouring blocks of one shape are alike: a batch of whole shapes holds few
orientations and teaches little. So each prepared shape is cut into crops of a few hundred blocks that stay on the device in a ring,
and a batch draws crops of different shapes. Measured on an H100, 8,192 blocks a batch: docs/notebook.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from shapecodec.data.collection import MeshCollection, build_pool
from shapecodec.data.source import BLOCK, BlockSource, PoolConfig, Prepare, SourceConfig
from shapecodec.grid import SparseGrid
from shapecodec.rng import rng


class CropPool:
    """Batches of crops out of a ring of shapes; the ring at a step, and the draw, are functions of (seed, step, rank).

    A resumed run fills the ring again (about 10 ms a shape on an H100) and goes on with the same batches.

    Args:
        prepare, real, procedural: as `BlockSource` takes them.
        config: of the shapes; each is drawn alone and has at most `budget` blocks.
        pool: how crops are kept and drawn.
    """

    def __init__(
        self,
        prepare: Prepare,
        real: MeshCollection | None,
        procedural: MeshCollection | None,
        config: SourceConfig,
        pool: PoolConfig,
    ) -> None:
        self.config, self.pool = config, pool
        self._source = BlockSource(prepare, real, procedural, replace(config, most_items=1))
        self._ring: dict[tuple[int, int], list[Any]] = {}

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> Any:
        """The packed crops of a step, on `device`: no two of one shape."""
        pool, oldest = self.pool, step * self.pool.fresh
        for key in [key for key in self._ring if key[1] < oldest]:
            del self._ring[key]
        for number in range(oldest, oldest + pool.capacity):
            if (rank, number) not in self._ring:
                self._ring[rank, number] = self._shape(number, rank, world, device)
        generator = rng(self.config.seed, step, rank, "crops")
        shapes = torch.randperm(pool.capacity, generator=generator)[: pool.crops].tolist()
        which = torch.randint(1 << 30, (pool.crops,), generator=generator).tolist()
        choices = [self._ring[rank, oldest + shape] for shape in shapes]
        items = [crops[draw % len(crops)] for crops, draw in zip(choices, which, strict=True)]
        batch = type(items[0]).pack(items)
        return replace(batch, values=batch.values.float())

    def _shape(self, number: int, rank: int, world: int, device: torch.device | str) -> list[Any]:
        """Up to `kept` crops of shape `number`, values in half precision (0.002 voxel), coordinates in the finest grid's range."""
        crop = self.pool.crop
        whole = self._source.batch(number, rank, world, device)
        finest = max(size for size, _ in self.config.resolutions)
        runs = -(-whole.tokens // crop)
        draw = torch.randperm(runs, generator=rng(self.config.seed, number, rank, "runs"))[: self.pool.kept]
        parts = []
        for run in draw.tolist():
            rows = torch.arange(run * crop, min((run + 1) * crop, whole.tokens), device=whole.values.device)
            part = whole.crop(rows)
            grid = SparseGrid(part.grid.coords, part.grid.offsets, finest // BLOCK)
            parts.append(replace(part, grid=grid, values=part.values.half(), resolution=finest))
        return parts


def open_source(
    prepare: Prepare, config: SourceConfig, *, device: torch.device | str = "cpu", workers: int = 1
) -> BlockSource | CropPool:
    """The source that a configuration describes, its meshes resident on `device`.

    With `workers` > 1 meshes are decoded and made in fresh processes: call it under `if __name__ == "__main__":`.

    Raises:
        BadFile: the data are missing or damaged. BadArgument: neither real nor procedural meshes are asked for.
    """
    real = None
    if config.data is not None:
        real = MeshCollection.from_path(config.data, config.split, workers=workers).to(device)
    pool = build_pool(config.procedural, config.seed, workers).to(device) if config.procedural else None
    source = BlockSource(prepare, real, pool, config)
    return source if config.pool is None else CropPool(prepare, real, pool, config, config.pool)
