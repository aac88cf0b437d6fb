"""Sets of shapes compared as pictures: Frechet and kernel distances between features of their renderings.

The features come from a network that is chosen by name and kept apart: any callable that is a `FeatureExtractor` will do,
and the name that it carries is printed beside the distance, because no two networks give comparable numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from torch.nn.functional import interpolate

from shapecodec.errors import BadArgument, BadFile, require
from shapecodec.evaluate.views import Views
from shapecodec.mesh import Mesh
from shapecodec.render.shade import render

PROTOCOL = "rendered-v1"
RENDERED = Views(10, 224)
DEFINITIONS = {
    "pictures": "Each shape on its own from the stated views, shaded grey on white, the shape filling the picture.",
    "frechet": "Squared Frechet distance between the Gaussians with the mean and covariance of the features (Heusel et al. 2017, "
    "there with Inception); biased upwards for few pictures: compare sets of equal size only.",
    "kernel": "Squared maximum mean discrepancy with the kernel (x y / width + 1)^3, unbiased (Binkowski et al. 2018); may be "
    "negative.",
    "floor": "Every second real shape against the others.",
}
MODELS = {
    "dinov2-small": "facebook/dinov2-small",
    "dinov2-base": "facebook/dinov2-base",
    "dinov2-large": "facebook/dinov2-large",
}
_WEIGHTS, _SIDE, _BATCH = "model.safetensors", 224, 32
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as DINOv2 was trained


class FeatureExtractor(Protocol):
    """Pictures to vectors; `name` says which network with which weights."""

    name: str

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1], sRGB -> (N, D) float32."""
        ...


def feature_extractor(
    name: str, *, folder: str | Path | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """A network by name, from weights that are already on this machine: nothing is downloaded.

    Args:
        name: "dinov2-small", "dinov2-base" or "dinov2-large" (Oquab et al. 2023); features are the class token's, 384, 768
            and 1024 wide.
        folder: with config.json and model.safetensors; None looks into the Hugging Face cache.
        device: where it runs.

    Raises:
        BadArgument: an unknown name.
        BadFile: the weights are absent.
        MissingExtra: transformers is not installed.
    """
    if name not in MODELS:
        raise BadArgument(f"unknown feature extractor '{name}'.", where="features", hint=f"one of {', '.join(MODELS)}.")
    if folder is None:
        found = try_to_load_from_cache(MODELS[name], _WEIGHTS)
        if not isinstance(found, str):
            raise BadFile(
                f"the weights of '{name}' are not on this machine, and without them there is no rendered distance.",
                where="features",
                hint=f"`hf download {MODELS[name]}` once, or a folder with config.json and {_WEIGHTS}.",
            )
        folder = Path(found).parent
    folder = Path(folder)
    for needed in ("config.json", _WEIGHTS):
        if not (folder / needed).is_file():
            raise BadFile(f"'{needed}' is missing, so '{name}' cannot be loaded.", where=str(folder))
    return _Dino(name, folder, device)


class _Dino:
    """DINOv2 behind the interface."""

    def __init__(self, name: str, folder: Path, device: torch.device | str) -> None:
        transformers = require("transformers", extra="features")
        self.name = name
        self.device = torch.device(device)
        model = transformers.Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = model.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        mean, spread = (torch.tensor(values, device=self.device)[:, None, None] for values in (_MEAN, _SPREAD))
        features = []
        for part in images.split(_BATCH):
            scaled = part.to(self.device)
            if scaled.shape[2:] != (_SIDE, _SIDE):
                scaled = interpolate(scaled, (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False)
            features.append(self._model(pixel_values=(scaled - mean) / spread).pooler_output.float().cpu())
        return torch.cat(features)


def rendered_features(meshes: Iterable[Mesh], extractor: FeatureExtractor, views: Views = RENDERED) -> Tensor:
    """(N, views, D) float32: features of each shape's pictures, in its own frame."""
    features = []
    for mesh in meshes:
        pictures = [np.asarray(render(mesh, camera), np.float32) / 255 for camera in views.cameras(mesh)]
        features.append(extractor(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)))
    if not features:
        raise BadArgument("there are no shapes.", where="rendered_features")
    return torch.stack(features)


def rendered_scores(
    generated: Iterable[Mesh], reference: Iterable[Mesh], extractor: FeatureExtractor, views: Views = RENDERED
) -> dict[str, Any]:
    """Frechet and kernel distance between the pictures of two sets of shapes.

    Args:
        generated: meshes, taken one at a time.
        reference: real ones.
        extractor: see `feature_extractor`.
        views: framed on each shape.

    Returns:
        JSON-ready: protocol, extractor, views, generated and reference (numbers of shapes), frechet, kernel, and floor
        {frechet, kernel}, None with fewer than four real shapes. `DEFINITIONS` says what they are.

    Raises:
        BadArgument: an empty set, or a single picture of one.
    """
    ours, theirs = (rendered_features(meshes, extractor, views) for meshes in (generated, reference))
    scores = feature_scores(ours.flatten(0, 1), theirs.flatten(0, 1))
    floor = None
    if len(theirs) >= 4:
        floor = feature_scores(theirs[::2].flatten(0, 1), theirs[1::2].flatten(0, 1))
    return {
        "protocol": PROTOCOL,
        "extractor": extractor.name,
        "views": views.as_dict(),
        "generated": len(ours),
        "reference": len(theirs),
        **scores,
        "floor": floor,
    }


def feature_scores(one: Tensor, two: Tensor) -> dict[str, float]:
    """{frechet, kernel} of two sets of features (N, D) and (M, D)."""
    return {"frechet": frechet_distance(one, two), "kernel": kernel_distance(one, two)}


def frechet_distance(one: Tensor, two: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to features (N, D) and (M, D), N and M at least 2; float64.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017, eq. 6. The trace of the root is the sum of the singular
    values of C1^(1/2) C2^(1/2), and the centred features themselves are such roots: no root of a nearly singular matrix is
    taken, and the cost is that of an N x M product where there are fewer pictures than features.
    """
    _check(one, two)
    means, roots = [], []
    for features in (one, two):
        wide = features.detach().cpu().double()
        means.append(wide.mean(0))
        roots.append(torch.linalg.qr((wide - means[-1]) / (len(wide) - 1) ** 0.5, mode="r").R)
    shift = (means[0] - means[1]).square().sum()
    common = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(float(shift + roots[0].square().sum() + roots[1].square().sum() - 2 * common), 0.0)


def kernel_distance(one: Tensor, two: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features (N, D) and (M, D) under (x y / D + 1)^3; float64."""
    _check(one, two)
    x, y = (features.detach().cpu().double() for features in (one, two))
    within = []
    for features in (x, y):
        kernel = (features @ features.T / features.shape[1] + 1) ** 3
        within.append((kernel.sum() - kernel.diagonal().sum()) / (len(features) * (len(features) - 1)))
    return float(within[0] + within[1] - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())


def _check(one: Tensor, two: Tensor) -> None:
    if one.ndim != 2 or two.ndim != 2 or one.shape[1:] != two.shape[1:] or min(len(one), len(two)) < 2:
        raise BadArgument(
            f"features {tuple(one.shape)} and {tuple(two.shape)}.",
            where="features",
            hint="(N, D) and (M, D), two rows or more.",
        )
