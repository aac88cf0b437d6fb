"""Focusing's training loss (eqs. 3, 5 and 6): pictures of the decoded surface, and what the shape itself says of the field.

A predicted surface has no gradient where there is none: all corners start at one value. The truncated signed distance makes
one (section 3.4); how long and how strongly it counts is `WeightsConfig.tsdf_steps` and `tsdf_after`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shapecodec.camera import Camera
from shapecodec.codecs.base import Loss
from shapecodec.codecs.focusing.config import WeightsConfig
from shapecodec.codecs.focusing.field import FlexField, Prediction, part_of, predicted_field
from shapecodec.codecs.focusing.inputs import PointVoxels, latent_voxels
from shapecodec.codecs.focusing.look import Look, look, picture
from shapecodec.codecs.focusing.network import Refined
from shapecodec.codecs.focusing.targets import Surface, occupied_children, signed_distance
from shapecodec.codecs.focusing.total_variation import total_variation
from shapecodec.codecs.focusing.views import section
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.nn.bottleneck import Gaussian
from shapecodec.render.differentiable import render_mesh
from shapecodec.render.image_losses import image_losses
from shapecodec.render.lpips import Lpips, load_lpips
from shapecodec.rng import counted_seed

if TYPE_CHECKING:
    from shapecodec.codecs.focusing.codec import Focusing


FIELD_TERMS = ("occupancy", "kl", "consistency", "deviation", "parameters", "variation", "tsdf")


class Views(Protocol):
    """A batch: shapes in the unit cube and a camera for each (`data.view_source.ViewBatch`)."""

    @property
    def meshes(self) -> tuple[Mesh, ...]:
        """B shapes, oriented, on the device."""
        ...

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """B cameras."""
        ...

    @property
    def resolution(self) -> int:
        """Voxels an axis of the output."""
        ...


class Decoded(NamedTuple):
    """One shape of a step.

    Args:
        view: what was asked.
        prediction: of its fine voxels.
        logits: occupancy of the children at each subdivision, (8 n,) each.
    """

    view: Look
    prediction: Prediction
    logits: list[Tensor]


def training_loss(codec: Focusing, batch: Views, step: int, rng: torch.Generator) -> Loss:
    """Encode what each view needs, decode what it sees, and compare.

    Args:
        codec: its `config` says which losses count and how a view is focused.
        batch: shapes and cameras.
        step: of training; schedules follow it.
        rng: on the device; the CPU's draws are seeded by it.
    """
    weights = codec.config.weights
    if weights.images.lpips:
        # missing files are told at the first step, not at the first picture
        perceptual(batch.meshes[0].vertices.device)
    views, posterior, refined = forward(codec, batch, rng)
    totals: dict[str, list[Tensor]] = {}
    with torch.autocast(refined.raw.device.type, enabled=False):
        for item, view in enumerate(views):
            shape = _one(codec, view, refined, item)
            for name, value in shape_terms(codec, shape, step, rng, item).items():
                totals.setdefault(name, []).append(value)
        terms = {name: torch.stack(values).mean() for name, values in totals.items()}
        terms["kl"] = posterior.kl()
        factors = loss_weights(weights, step)
        total = torch.stack([factors[name] * value for name, value in terms.items()]).sum()
    return Loss(total, {name: value.detach() for name, value in terms.items()})


def forward(codec: Focusing, batch: Views, rng: torch.Generator) -> tuple[list[Look], Gaussian, Refined]:
    """The networks' part of a step: what is looked at, the posterior of the kept voxels, and the fine voxels."""
    config, resolution = codec.config, batch.resolution
    draws = torch.Generator().manual_seed(counted_seed(rng.initial_seed(), purpose="views"))
    views = [
        look(
            mesh,
            latent_voxels(mesh, resolution, config.factor),
            camera,
            config.focus,
            config.depth,
            config.window,
            draws,
        )
        for mesh, camera in zip(batch.meshes, batch.cameras, strict=True)
    ]
    inputs = PointVoxels.pack([codec.points(view.mesh, view.encoded, rng, resolution) for view in views])
    whole = codec.posterior(inputs)
    starts = inputs.grid.offsets.tolist()
    rows = torch.cat([view.kept + start for view, start in zip(views, starts, strict=False)])
    posterior = Gaussian(whole.mean[rows], whole.logvar[rows])
    grid = SparseGrid.concatenate([view.decoded for view in views])
    feats = codec.decoder.attend(posterior.sample(rng), grid)
    return views, posterior, codec.decoder.refine(feats, grid)


def _one(codec: Focusing, view: Look, refined: Refined, item: int) -> Decoded:
    """Shape `item` of what the decoder says of a batch."""
    rows = slice(int(refined.grid.offsets[item]), int(refined.grid.offsets[item + 1]))
    prediction = predicted_field(refined.raw[rows], refined.grid.item(item), codec.config.truncation)
    logits = [values[int(grid.offsets[item]) : int(grid.offsets[item + 1])] for values, grid in refined.occupancy]
    return Decoded(view, prediction, logits)


def shape_terms(codec: Focusing, shape: Decoded, step: int, rng: torch.Generator, item: int = 0) -> dict[str, Tensor]:
    """The losses of shape `item` of a batch by name, unweighted; those of weight 0 are not computed."""
    config, (view, prediction, logits) = codec.config, shape
    weights, resolution = config.weights, prediction.field.resolution
    factors = loss_weights(weights, step)
    terms = {"consistency": prediction.consistency, "parameters": prediction.parameters}
    if factors["occupancy"]:
        terms["occupancy"] = occupancy_loss(view, logits)
    if factors["tsdf"]:
        terms["tsdf"] = tsdf_loss(view.mesh, prediction, config.truncation, weights.tsdf_corners, rng)
    if factors["variation"]:
        terms["variation"] = total_variation(
            prediction.field.sdf / resolution, prediction.corners, reduction=weights.variation_reduction
        )
    if step < weights.render_from:
        return terms
    field, view = (
        sectioned(prediction.field, view, codec, rng, item) if config.focus.mode == "all" else (prediction.field, view)
    )
    surface = field.surface()
    terms["deviation"] = surface.deviation
    predicted = render_mesh(surface.vertices, surface.faces, [view.camera], towards_viewer=True)
    lpips = perceptual(surface.vertices.device) if weights.images.lpips else None
    return terms | image_losses(predicted, view.truth, resolution, weights.images, lpips=lpips)


@cache
def perceptual(device: torch.device) -> Lpips:
    """The pretrained network of LPIPS, which no codec folder holds; see `render.lpips.load_lpips`."""
    return load_lpips().to(device)


def sectioned(field: FlexField, view: Look, codec: Focusing, rng: torch.Generator, item: int) -> tuple[FlexField, Look]:
    """The baseline: of everything decoded, the fine voxels in a section of the frustum, and the truth in the same section."""
    draws = torch.Generator().manual_seed(counted_seed(rng.initial_seed(), rank=item, purpose="section"))
    low, high = codec.config.focus.alpha
    alpha = low + (high - low) * float(torch.rand((), generator=draws))
    found = section(field.grid, view.camera, alpha, draws)
    keep = torch.zeros(len(field.grid), dtype=torch.bool, device=field.grid.device)
    keep[found.rows] = True
    return part_of(field, keep), replace(view, camera=found.camera, truth=picture(view.mesh, found.camera))


def occupancy_loss(view: Look, logits: list[Tensor]) -> Tensor:
    """Mean over subdivisions of the cross entropy of their children's occupancy (L_occ), truth by exact overlap."""
    grid, losses = view.decoded, []
    for values in logits:
        truth = occupied_children(grid, [view.mesh]).flatten().float()
        total = binary_cross_entropy_with_logits(values, truth, reduction="sum")
        losses.append(total / max(len(values), 1))
        grid = grid.children()
    return torch.stack(losses).mean()


def tsdf_loss(mesh: Mesh, prediction: Prediction, truncation: float, count: int, rng: torch.Generator) -> Tensor:
    """Mean absolute error of the truncated signed distance at corners (eq. 5), in truncations.

    The paper takes the distance "from raw meshes": exact, to the nearest triangle, on the side that its normal says. At the
    place of a corner once deformed; at `count` corners, drawn evenly, of a large field.
    """
    corners, field = prediction.corners, prediction.field
    if len(corners) > count:
        chosen = torch.randint(len(corners), (count,), generator=rng, device=field.sdf.device)
    else:
        chosen = torch.arange(len(corners), device=field.sdf.device)
    places = corners.positions(chosen) + field.deformation.detach()[chosen] / corners.resolution
    truth = signed_distance(places, Surface.of(mesh, welded=True)) * (corners.resolution / truncation)
    return (field.sdf[chosen] / truncation - truth.clamp(-1, 1)).abs().sum() / max(len(chosen), 1)


def loss_weights(weights: WeightsConfig, step: int) -> dict[str, float]:
    """The factor of each named term at a step; see `WeightsConfig`."""
    fade = weights.tsdf_steps / 10
    falling = min(max((step - weights.tsdf_steps) / fade, 0.0), 1.0) if fade else 1.0
    factors = weights.images.weights() | {name: float(getattr(weights, name)) for name in FIELD_TERMS}
    factors["tsdf"] *= 1 + falling * (weights.tsdf_after - 1)
    return factors
