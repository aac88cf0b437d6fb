"""What two pictures of a shape differ by: the terms of Focusing's rendering loss (eq. 3), weighted as TRELLIS weights them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.render.differentiable import Picture
from shapecodec.render.lpips import Lpips
from shapecodec.render.ssim import ssim


@dataclass(frozen=True)
class ImageLossConfig:
    """Weights of the terms; a term of weight 0 is not computed.

    Args:
        depth: smooth L1, in units of the world.
        normal: L1 of normal maps in [0, 1], half of that of the normals' components.
        ssim: 1 - SSIM of normal maps.
        lpips: LPIPS of normal maps; needs the published weights (`render.lpips.load_lpips`).
        mask: L1.
        depth_knee: voxels of the output below which the depth's error counts by its square.
    """

    depth: float = 10.0
    normal: float = 1.0
    ssim: float = 0.2
    lpips: float = 0.2
    mask: float = 1.0
    depth_knee: float = 0.5

    def __post_init__(self) -> None:
        if min(self.weights().values()) < 0 or not self.depth_knee > 0:
            raise BadArgument(f"{self}: weights are at least 0, the knee is above 0.", where="ImageLossConfig")

    def weights(self) -> dict[str, float]:
        """The weight of each term by its name."""
        return {name: getattr(self, name) for name in ("depth", "normal", "ssim", "lpips", "mask")}


def image_losses(
    prediction: Picture,
    truth: Picture,
    resolution: int,
    config: ImageLossConfig | None = None,
    *,
    lpips: Lpips | None = None,
) -> dict[str, Tensor]:
    """The terms of eq. 3 before their weights.

    Depths and normals count under the truth's mask, which is blended at outlines: what the prediction adds beside the
    shape is the mask's affair. A normal map is (n + 1) / 2, middle grey on the background, so that outlines, which both
    maps share, have less contrast than with black. All are means over all pixels, background included, in float32.

    Args:
        prediction, truth: B views each, of one size, from the same cameras.
        resolution: voxels an axis of the output; the depth's smooth L1 has beta = depth_knee / resolution.
        config: None for the defaults.
        lpips: needed where its weight is not 0.

    Returns:
        Scalars by the names of `ImageLossConfig.weights`, those with a weight, differentiable in the prediction.

    Raises:
        BadArgument: pictures of different sizes, or no `lpips` although it has a weight.
    """
    config = config or ImageLossConfig()
    if prediction.normal.shape != truth.normal.shape:
        raise BadArgument(
            f"pictures {tuple(prediction.mask.shape)} and {tuple(truth.mask.shape)}.", where="image_losses"
        )
    if config.lpips and lpips is None:
        raise BadArgument(
            f"LPIPS has weight {config.lpips} but no network.", where="image_losses", hint="load_lpips(), or weight 0."
        )
    mask = truth.mask.detach()
    terms = {}
    if config.depth:
        beta = config.depth_knee / resolution
        terms["depth"] = torch.nn.functional.smooth_l1_loss(prediction.depth * mask, truth.depth * mask, beta=beta)
    shown, given = (0.5 + 0.5 * picture.normal * mask[..., None] for picture in (prediction, truth))
    if config.normal:
        terms["normal"] = (shown - given).abs().mean()
    if config.ssim:
        terms["ssim"] = 1 - ssim(shown, given).mean()
    if config.lpips and lpips is not None:
        terms["lpips"] = lpips(shown, given).mean()
    if config.mask:
        terms["mask"] = (prediction.mask - mask).abs().mean()
    return terms


def weighted_sum(terms: Mapping[str, Tensor], config: ImageLossConfig) -> Tensor:
    """The scalar that eq. 3 minimises.

    Raises:
        BadArgument: no term.
    """
    weights = config.weights()
    parts = [weights[name] * value for name, value in terms.items()]
    if not parts:
        raise BadArgument("all weights of the rendering loss are 0.", where="weighted_sum")
    return torch.stack(parts).sum()
