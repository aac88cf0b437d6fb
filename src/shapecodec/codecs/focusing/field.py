"""What Focusing decodes to: a SparseFlex field on the fine voxels that the surface passes (section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.codecs.focusing.config import ALPHA, BETA, DEFORMATION, GAMMA, SDF
from shapecodec.codecs.focusing.targets import Surface, signed_distance
from shapecodec.errors import BadArgument, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.flex_surface import Corners, FlexSurface, average_corners, flex_surface, voxel_corners
from shapecodec.ops.voxelise import voxelise

SURFACES = ("single", "auto")


@dataclass(frozen=True)
class FlexReport:
    """How a surface was made.

    Args:
        requested: the mode that was asked for.
        mode: "single": a field with a sign has one layer.
        reason: in words.
        voxels: fine voxels that the surface passes.
    """

    requested: str
    mode: str
    reason: str
    voxels: int


@dataclass(frozen=True, eq=False)
class FlexField:
    """Signed distances at the corners of fine voxels, and how each voxel places its part of the surface.

    Args:
        grid: M fine voxels of one item.
        sdf: (C,) float32 at the corners of `voxel_corners(grid)`, in voxels, negative inside.
        deformation: (C, 3) displacement of the corners, in voxels.
        alpha, beta, gamma: (M, 8), (M, 12), (M,) positive weights, see `ops.flex_surface`.
    """

    grid: SparseGrid
    sdf: Tensor
    deformation: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor

    @property
    def resolution(self) -> int:
        """Voxels an axis."""
        return self.grid.resolution

    def sample(self, points: Tensor) -> Tensor:
        """Signed distances (Q,) float32 in unit-cube lengths at points (Q, 3), trilinear; nan where no voxel is active."""
        scaled = (points.float() + 0.5) * self.resolution
        cell = scaled.floor()
        row = self.grid.lookup(cell.to(torch.int32))
        inside = row >= 0
        if len(self.grid) == 0:
            return points.new_full((len(points),), torch.nan)
        values = self.sdf[voxel_corners(self.grid).index[row.clamp_min(0)]].unflatten(1, (2, 2, 2))
        for share in (scaled - cell).unbind(1):  # x, then y, then z
            share = share.view(-1, *[1] * (values.ndim - 2))
            values = torch.lerp(values[:, 0], values[:, 1], share)
        return torch.where(inside, values / self.resolution, torch.nan)

    def surface(self, split: str = "centre", backend: str = "auto") -> FlexSurface:
        """The differentiable surface; see `ops.flex_surface`."""
        return flex_surface(
            self.grid, self.sdf, self.deformation, self.alpha, self.beta, self.gamma, split=split, backend=backend
        )

    def to_mesh(self, resolution: int | None = None, surface: str = "auto") -> Mesh:
        """The surface in the unit cube; see `to_surface`."""
        return self.to_surface(resolution, surface)[0]

    def to_surface(self, resolution: int | None = None, surface: str = "auto") -> tuple[Mesh, FlexReport]:
        """The surface in the unit cube and how it was made; open where active voxels end.

        Args:
            resolution: None or the field's own.
            surface: single or auto, which are the same here.

        Raises:
            BadArgument: another resolution than the field's own, or a mode of fields without a sign.
            BadMesh: no sign changes anywhere.
        """
        if surface not in SURFACES:
            raise BadArgument(
                f"surface '{surface}' is not for this field: it has a sign, so its surface is a single layer.",
                where="FlexField.to_surface",
                hint=f"one of {', '.join(SURFACES)}.",
            )
        if resolution not in (None, self.resolution):
            raise BadArgument(
                f"the field has {self.resolution}^3 voxels and cannot be extracted at {resolution}^3.",
                where="FlexField.to_surface",
                hint=f"encode at resolution {resolution}, or leave it out.",
            )
        found = self.surface("diagonal")
        if len(found.faces) == 0:
            raise BadMesh(
                "the decoded field has no surface.",
                where="focusing",
                hint="another codec, or latents of a trained one.",
            )
        reason = "dual marching cubes of a signed field"
        return Mesh(found.vertices, found.faces, "decoded"), FlexReport(surface, "single", reason, len(self.grid))


@dataclass(frozen=True, eq=False)
class Prediction:
    """A field, and what training asks of the same numbers.

    Args:
        field: see `FlexField`.
        corners: of its grid.
        consistency: mean squared disagreement of voxels on shared corners, sdf in truncations, deformation in half voxels.
        parameters: mean absolute raw alpha and beta.
    """

    field: FlexField
    corners: Corners
    consistency: Tensor
    parameters: Tensor


def predicted_field(raw: Tensor, grid: SparseGrid, truncation: float) -> Prediction:
    """53 channels of the M fine voxels of one shape -> its field.

    A corner's sdf and deformation are means over the voxels that share it. The ranges are FlexiCubes': deformation within half
    a voxel, alpha and beta in (.01, 1.99), gamma in (.005, .995).

    Args:
        raw: (M, 53) float32: sdf 8 in truncations, deformation 8 x 3, beta 12, alpha 8, gamma 1.
        grid: of the M voxels, one item.
        truncation: in voxels.
    """
    sdf, deformation, beta, alpha, gamma = raw.split([SDF, DEFORMATION, BETA, ALPHA, GAMMA], 1)
    corners = voxel_corners(grid)
    means, consistency = average_corners(torch.cat([sdf[..., None], deformation.unflatten(1, (8, 3))], 2), corners)
    field = FlexField(
        grid,
        means[:, 0] * truncation,
        0.5 * means[:, 1:].tanh(),
        1 + 0.99 * alpha.tanh(),
        1 + 0.99 * beta.tanh(),
        0.005 + 0.99 * gamma[:, 0].sigmoid(),
    )
    parameters = (alpha.abs().sum() + beta.abs().sum()) / max(alpha.numel() + beta.numel(), 1)
    return Prediction(field, corners, consistency, parameters)


def cut_voxels(field: FlexField) -> Tensor:
    """(M,) bool: voxels whose corners differ in sign; the others add nothing to the surface."""
    inside = (field.sdf < 0)[voxel_corners(field.grid).index]
    return inside.any(1) & ~inside.all(1)


def join_fields(parts: list[FlexField], resolution: int) -> FlexField:
    """Fields of disjoint sets of voxels, in Morton order one after the other, as one.

    Where parts share a corner they must agree on it up to rounding; the last one counts.
    """
    grid = SparseGrid(
        torch.cat([part.grid.coords for part in parts]),
        torch.tensor([0, sum(len(part.grid) for part in parts)]),
        resolution,
    )
    corners = voxel_corners(grid)
    values = torch.cat([torch.cat([part.sdf[:, None], part.deformation], 1)[_index(part)] for part in parts])
    shared = values.new_zeros(len(corners), 4)
    for slot in range(8):  # a corner is slot s of at most one voxel: each pass writes a row at most once
        shared[corners.index[:, slot]] = values[:, slot]
    weights = (torch.cat([getattr(part, name) for part in parts]) for name in ("alpha", "beta", "gamma"))
    return FlexField(grid, shared[:, 0].contiguous(), shared[:, 1:].contiguous(), *weights)


def part_of(field: FlexField, keep: Tensor) -> FlexField:
    """The field on the voxels where keep (M,) is true."""
    grid = SparseGrid(field.grid.coords[keep], torch.tensor([0, int(keep.sum())]), field.resolution)
    corners, index = voxel_corners(grid), _index(field)[keep]
    row = index.new_zeros(len(corners))
    row[corners.index.flatten()] = index.flatten()
    return FlexField(
        grid, field.sdf[row], field.deformation[row], field.alpha[keep], field.beta[keep], field.gamma[keep]
    )


def _index(field: FlexField) -> Tensor:
    return voxel_corners(field.grid).index


def exact_field(mesh: Mesh, resolution: int) -> FlexField:
    """What a perfect decoder would say: exact signed distances around the surface, no displacement, even weights.

    Args:
        mesh: in the unit cube, faces that agree on the outside (`orient.oriented`).
        resolution: voxels an axis.
    """
    grid = voxelise(mesh.vertices, mesh.faces, resolution, dilation=1.0, fine=1)
    corners = voxel_corners(grid)
    sdf = signed_distance(corners.positions(), Surface.of(mesh)) * resolution
    ones = sdf.new_ones(len(grid), 12)
    field = FlexField(grid, sdf, sdf.new_zeros(len(sdf), 3), ones[:, :8], ones, ones[:, 0])
    return part_of(field, cut_voxels(field))
