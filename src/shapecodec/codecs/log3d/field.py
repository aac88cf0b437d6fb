"""What LoG3D decodes to: an unsigned distance field in the 8^3 blocks near the surface."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapecodec.codecs.log3d.surface import SurfaceReport, extract_surface
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.block_sample import block_sample


@dataclass(frozen=True, eq=False)
class BlockField:
    """An unsigned distance field, truncated at tau = truncation / resolution.

    Args:
        values: (L, 8, 8, 8) float32 u / tau in [0, 1], indexed [block, x, y, z], at voxel centres.
        grid: the L active blocks, one item; absent blocks are saturated.
        resolution: voxels an axis, 8 * grid.resolution.
        truncation: voxels.

    Raises:
        BadArgument: arrays that do not fit each other.
    """

    values: Tensor
    grid: SparseGrid
    resolution: int
    truncation: float = 4.0

    def __post_init__(self) -> None:
        if self.resolution != 8 * self.grid.resolution:
            raise BadArgument(
                f"resolution {self.resolution} is not 8 x {self.grid.resolution} blocks.", where="BlockField"
            )
        if self.values.shape != (len(self.grid), 8, 8, 8):
            raise BadArgument(
                f"values must be ({len(self.grid)}, 8, 8, 8), got {tuple(self.values.shape)}.", where="BlockField"
            )
        if not self.truncation > 1.0:
            raise BadArgument(f"truncation {self.truncation} is not above one voxel.", where="BlockField")

    @property
    def tau(self) -> float:
        """The truncation distance in unit-cube lengths."""
        return self.truncation / self.resolution

    def sample(self, points: Tensor) -> Tensor:
        """Distances (Q,) float32 in unit-cube lengths at points (Q, 3), trilinear; tau wherever no block is active."""
        return block_sample(points, self.values, self.grid)[0] * self.tau

    def to_mesh(self, resolution: int | None = None, surface: str = "auto") -> Mesh:
        """The surface in the unit cube; see `to_surface`."""
        return self.to_surface(resolution, surface)[0]

    def to_surface(self, resolution: int | None = None, surface: str = "auto") -> tuple[Mesh, SurfaceReport]:
        """The surface in the unit cube and how it was made.

        Args:
            resolution: None or the field's own; a voxel field holds no other.
            surface: shell, snapped, single or auto, see `extract_surface`.

        Raises:
            BadArgument: another resolution than the field's own, or an unknown surface.
            BadMesh: the field stays above one voxel everywhere.
        """
        if resolution not in (None, self.resolution):
            raise BadArgument(
                f"the field has {self.resolution}^3 voxels and cannot be extracted at {resolution}^3.",
                where="BlockField.to_mesh",
                hint=f"decode at resolution {resolution}, or leave it out.",
            )
        return extract_surface(self.values, self.grid, self.resolution, truncation=self.truncation, mode=surface)
