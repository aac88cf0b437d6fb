"""What a training step sees of a shape: the voxels that it encodes and decodes, the camera, and the pictures to match.

Carving and zooming ask where voxels are, not what they hold. So they come first, and the encoder reads only the kept voxels
and a halo: beyond the paper, whose encoder sees the whole shape and is the floor of its cost (sections 3.2 and 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.camera import Camera
from shapecodec.codecs.focusing.carve import seen_voxels
from shapecodec.codecs.focusing.config import FocusConfig
from shapecodec.codecs.focusing.halo import encoder_needs
from shapecodec.codecs.focusing.zoom import ZoomConfig, zoom
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.ops.rasterise import rasterise
from shapecodec.render.differentiable import Picture, render_mesh, to_clip


@dataclass(frozen=True, eq=False)
class Look:
    """One shape as one camera sees it.

    Args:
        mesh: the shape, in the unit cube.
        total: latent voxels of the whole shape.
        encoded: the latent voxels that the encoder reads.
        kept: (K,) int64 ascending, the rows of `encoded` that are decoded.
        camera: zoomed to them.
        truth: its picture of the shape.
    """

    mesh: Mesh
    total: int
    encoded: SparseGrid
    kept: Tensor
    camera: Camera
    truth: Picture

    @property
    def decoded(self) -> SparseGrid:
        """The K latent voxels that are decoded."""
        return rows_of(self.encoded, self.kept)


@torch.no_grad()
def look(
    mesh: Mesh, grid: SparseGrid, camera: Camera, config: FocusConfig, depth: int, window: int, draws: torch.Generator
) -> Look:
    """Choose what is encoded and decoded, and render the truth with the camera that goes with it.

    Args:
        mesh: in the unit cube.
        grid: its latent voxels, one item.
        camera: before zooming; its image's size is ignored.
        config: see `FocusConfig`.
        depth: blocks of the encoder's transformer, which say how windows are shifted.
        window: of its attention.
        draws: a generator on the CPU.
    """
    everything = torch.arange(len(grid), device=grid.device)
    camera = resized(camera, config.size)
    if config.mode == "all":
        return Look(mesh, len(grid), grid, everything, camera, picture(mesh, camera))
    kept = seen_rows(mesh, grid, camera, config)
    if len(kept) == 0:  # a thin shape in a corner of the cube may lie beside the picture
        camera = camera.framed(mesh.vertices)
        kept = seen_rows(mesh, grid, camera, config)
    if config.mode == "zoom":
        limits = ZoomConfig(config.alpha, config.least, config.most, config.scale)
        carved = rows_of(grid, kept)
        places = Latents(
            (Level(torch.zeros(len(kept), 0, device=grid.device), carved.offsets, carved.coords, grid.resolution),), 0
        )
        zoomed = zoom(places, [camera], draws, limits, totals=[len(grid)])
        kept, camera = kept[zoomed.rows], zoomed.cameras[0]
    encoded = grid
    if config.halo is not None:
        wanted = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
        wanted[kept] = True
        needs = encoder_needs(grid, wanted, depth, last=min(config.halo, depth), window=window)
        encoded = rows_of(grid, needs.nonzero()[:, 0])
        kept = (needs.cumsum(0) - 1)[kept]
    return Look(mesh, len(grid), encoded, kept, camera, picture(mesh, camera))


def seen_rows(mesh: Mesh, grid: SparseGrid, camera: Camera, config: FocusConfig) -> Tensor:
    """(K,) int64 ascending: the rows of the grid that carving leaves."""
    small = resized(camera, config.depth_size)
    return seen_voxels(grid, [small], depth_map(mesh, small), reach=config.threshold / grid.resolution).nonzero()[:, 0]


def resized(camera: Camera, side: int) -> Camera:
    """The same picture of a square camera with `side` pixels a side."""
    return Camera(camera.view, camera.projection, side, side)


def depth_map(mesh: Mesh, camera: Camera) -> Tensor:
    """(1, H, W) float64 lengths along the viewing axis, inf where nothing is."""
    seen = rasterise(to_clip(mesh.vertices, [camera]), mesh.faces, (camera.width, camera.height))
    return camera.to_lengths(seen.depth)


def picture(mesh: Mesh, camera: Camera) -> Picture:
    """Depth, normals turned to the viewer, and mask."""
    return render_mesh(mesh.vertices, mesh.faces, [camera], towards_viewer=True)


def rows_of(grid: SparseGrid, rows: Tensor) -> SparseGrid:
    """The voxels (K,) int64 ascending of a grid of one item, in its order."""
    return SparseGrid(grid.coords[rows], torch.tensor([0, len(rows)]), grid.resolution)
