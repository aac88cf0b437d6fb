"""LoG3D's settings, with where each comes from."""

from __future__ import annotations

from dataclasses import dataclass

from shapecodec.errors import BadArgument


@dataclass(frozen=True)
class Log3DConfig:
    """The paper's values by default; `docs/log3d.md` says how its text was read.

    Args:
        resolution: voxels an axis when `prepare` is given none; a multiple of 8.
        truncation: the field is clamped at this many voxels and divided by it (A.1: 4 / N).
        activity: a block is kept if its 8^3 voxels come nearer to the surface than this many voxels (A.2: 4).
        width: channels of the first local stage; tokens have 8 * width (A.3: 32 and 256).
        depth: transformer blocks of the encoder, and of the decoder (A.3: 8); 0 leaves tokens independent.
        heads: attention heads (A.3: 8).
        window: of the shifted-window attention, in blocks (A.3: 8).
        convs_per_block: sparse convolutions of a transformer block; 2 gives the 77M parameters of Table 1, 1 is the text.
        latent: channels of a token's latent (A.3: 16).
        huber_delta: of the loss on the normalised field (A.6: 0.2).
        kl_weight: of the mean over elements (A.6: 1e-6; the text leaves the reduction open).
        near_weight: weight of voxels nearer than the truncation, against 1 for the saturated rest (paper: 1).
        chunk: blocks that pass the local networks at a time.
        checkpoint: recompute transformer blocks in the backward pass.
    """

    resolution: int = 1024
    truncation: float = 4.0
    activity: float = 4.0
    width: int = 32
    depth: int = 8
    heads: int = 8
    window: int = 8
    convs_per_block: int = 2
    latent: int = 16
    huber_delta: float = 0.2
    kl_weight: float = 1e-6
    near_weight: float = 1.0
    chunk: int = 16384
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.resolution % 8 or self.resolution < 16:
            raise BadArgument(f"resolution {self.resolution} is not a multiple of 8 of at least 16.", where="log3d")
        if self.width < 4 or self.width & (self.width - 1):
            raise BadArgument(f"width {self.width} is not a power of two of at least 4.", where="log3d")

    @property
    def channels(self) -> int:
        """Channels of a token."""
        return 8 * self.width
