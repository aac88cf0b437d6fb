"""Data sets of boxes, written in a moment."""

from pathlib import Path

import torch

from shapecodec.io.mesh_files import write_mesh
from shapecodec.mesh import Mesh

FACES = torch.tensor([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip


def box(x: float, y: float, z: float, corner: float = 0.0) -> Mesh:
    vertices = torch.tensor([[a, b, c] for a in (0.0, x) for b in (0.0, y) for c in (0.0, z)])
    return Mesh(vertices + corner, FACES)


def box_folder(folder: Path, *names: str) -> Path:
    """A box a name, each of other proportions."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        write_mesh(box(1.0, 1.5 + index / 4, 2.0, corner=100.0), folder / f"{name}.ply")
    return folder
