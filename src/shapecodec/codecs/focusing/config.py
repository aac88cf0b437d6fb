"""Focusing's settings, with where each comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shapecodec.errors import BadArgument
from shapecodec.render.image_losses import ImageLossConfig

SDF, DEFORMATION, BETA, ALPHA, GAMMA = 8, 24, 12, 8, 1  # channels of a fine voxel's prediction
OUTPUTS = SDF + DEFORMATION + BETA + ALPHA + GAMMA


@dataclass(frozen=True)
class FocusConfig:
    """What of a shape a training step encodes, decodes and looks at.

    Args:
        mode: "zoom" carves and zooms (the paper's method), "carve" carves only, "all" decodes everything and takes from it the
            fine voxels within the camera's sectioned frustum (TripoSF's baseline).
        threshold: r of the carving, in latent voxels.
        alpha: bounds of the kept share of a shape's latent voxels (section 3.3), drawn uniformly. Of "all": the visible share.
        least, most: bounds of the number of latent voxels that a zoomed step decodes.
        scale: s of eq. 4.
        halo: transformer blocks whose windows the encoder's voxels must fill around the kept ones; as many as the encoder has
            give exactly the features of the whole shape, None encodes the whole shape (the paper).
        size: pixels of a side of the pictures that are compared (518).
        depth_size: pixels of a side of the depth map that carves.
    """

    mode: Literal["zoom", "carve", "all"] = "zoom"
    threshold: float = 2.0
    alpha: tuple[float, float] = (0.1, 0.3)
    least: int = 8192
    most: int = 15360
    scale: float = 1.1
    halo: int | None = None
    size: int = 518
    depth_size: int = 518

    def __post_init__(self) -> None:
        if self.mode not in ("zoom", "carve", "all"):
            raise BadArgument(f"unknown mode '{self.mode}'.", where="FocusConfig", hint="zoom, carve or all.")
        if not 0 < self.alpha[0] <= self.alpha[1] or not 1 <= self.least <= self.most or not self.scale >= 1:
            raise BadArgument(
                f"alpha {self.alpha}, {self.least} to {self.most} voxels, scale {self.scale}.",
                where="FocusConfig",
                hint="ranges above 0 from low to high, and a scale of at least 1.",
            )
        if self.threshold < 0 or (self.halo is not None and self.halo < 0) or min(self.size, self.depth_size) < 11:
            raise BadArgument(
                f"threshold {self.threshold}, halo {self.halo}, pictures of {self.size} and {self.depth_size} pixels.",
                where="FocusConfig",
                hint="nothing negative, and pictures of 11 pixels a side or more.",
            )


@dataclass(frozen=True)
class WeightsConfig:
    """Weights of the losses (eq. 3; "as TRELLIS": facts of its released trainer) and how they change.

    Args:
        images: of the pictures (`render.image_losses`); LPIPS needs pretrained weights, 0 leaves it out.
        occupancy: of each subdivision's binary cross entropy.
        kl: of the mean over latent elements.
        consistency, deviation, parameters: the regulariser of SparseFlex: voxels agree on shared corners, crossings keep their
            distance from the dual vertex, raw alpha and beta stay small.
        variation: lambda_5 of the sparse total variation (eq. 6) of distances in unit-cube lengths.
        variation_reduction: over corners; which one the paper means it does not say.
        tsdf: lambda_6 of the truncated signed distance (eq. 5), over its truncation.
        tsdf_steps: steps for which it counts in full; then it falls to `tsdf_after` times that within a tenth of them.
        tsdf_after: factor afterwards; 0 in the paper.
        tsdf_corners: corners a shape for which it is computed.
        render_from: step from which pictures are compared; before, the surface is blocky and its pictures teach little.
    """

    images: ImageLossConfig = field(default_factory=ImageLossConfig)
    occupancy: float = 0.1
    kl: float = 1e-6
    consistency: float = 1.0
    deviation: float = 0.5
    parameters: float = 0.2
    variation: float = 0.001
    variation_reduction: Literal["sum", "mean"] = "sum"
    tsdf: float = 1.0
    tsdf_steps: int = 12_000
    tsdf_after: float = 0.0
    tsdf_corners: int = 1 << 18
    render_from: int = 0

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        negative = [name for name, value in numbers.items() if value < 0]
        if negative or self.tsdf_corners < 1:
            raise BadArgument(f"{negative or ['tsdf_corners']} must not be negative.", where="WeightsConfig")
        if self.variation_reduction not in ("sum", "mean"):
            raise BadArgument(
                f"unknown reduction '{self.variation_reduction}'.", where="WeightsConfig", hint="sum or mean."
            )


@dataclass(frozen=True)
class FocusingConfig:
    """The paper's network by default; `docs/focusing.md` says how its text was read.

    Args:
        resolution: voxels an axis of the output when `prepare` is given none.
        points: oriented points sampled on a shape (819,200).
        stratified: the same number of points for each voxel, in place of uniform by area.
        point_channels: hidden channels of the local PointNet (512); it pools half of them and hands twice as many on.
        freeze_points: leave the PointNet as it is; the paper's is pretrained.
        channels, heads, depth, window: of both transformers (768, 12, 12, 8).
        latent: channels of a voxel's latent (8).
        up_channels: of the subdivision blocks, each of which doubles the resolution (192, 96); three make a factor of 8.
        occupancy_ratio: hidden over input channels of the occupancy heads (4).
        norm: of the subdivision blocks: "layer", over the channels of a voxel, so that a crop is decoded as the whole is;
            "group", over all voxels of a shape in 32 groups of channels (TripoSF), which differs between the two.
        truncation: of the signed distance, in output voxels; predictions count in it.
        checkpoint: recompute transformer blocks in the backward pass.
        chunk: latent voxels that pass the subdivision blocks at a time when a whole shape is decoded.
        focus: what a training step sees.
        weights: of the losses.
    """

    resolution: int = 512
    points: int = 819_200
    stratified: bool = False
    point_channels: int = 512
    freeze_points: bool = False
    channels: int = 768
    heads: int = 12
    depth: int = 12
    window: int = 8
    latent: int = 8
    up_channels: tuple[int, ...] = (192, 96)
    occupancy_ratio: int = 4
    norm: Literal["layer", "group"] = "layer"
    truncation: float = 3.0
    checkpoint: bool = False
    chunk: int = 16_384
    focus: FocusConfig = field(default_factory=FocusConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)

    def __post_init__(self) -> None:
        if not 1 <= len(self.up_channels) <= 4:
            raise BadArgument(f"{len(self.up_channels)} subdivision blocks; 2 or 3 are usual.", where="focusing")
        self.check_resolution(self.resolution)
        if self.norm == "group" and any(c % 32 for c in (self.channels, *self.up_channels)):
            raise BadArgument(
                f"32 groups do not divide {(self.channels, *self.up_channels)} channels.", where="focusing"
            )
        sizes = (self.points, self.point_channels // 2, self.chunk, self.latent, self.heads, self.depth, self.window)
        if min(sizes) < 1 or not self.truncation >= 1:
            raise BadArgument("sizes start at 1, and the truncation at one voxel.", where="focusing")
        if self.norm not in ("layer", "group"):
            raise BadArgument(f"unknown norm '{self.norm}'.", where="focusing", hint="layer or group.")
        if self.channels % self.heads:
            raise BadArgument(f"{self.heads} heads do not divide {self.channels} channels.", where="focusing")

    @property
    def factor(self) -> int:
        """Output voxels along the edge of a latent voxel."""
        return 1 << len(self.up_channels)

    def check_resolution(self, resolution: int) -> None:
        """Refuse a resolution that latent voxels cannot fill."""
        if resolution % self.factor or resolution < 4 * self.factor:
            nearest = max(4 * self.factor, round(resolution / self.factor) * self.factor)
            raise BadArgument(
                f"resolution {resolution} is not a multiple of {self.factor} of at least {4 * self.factor}.",
                where="focusing",
                hint=f"--resolution {nearest}.",
            )
