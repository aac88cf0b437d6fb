"""LPIPS (Zhang et al. 2018), version 0.1 with VGG16: distances between pictures in a network's features.

The weights are not part of this library and are never downloaded here. VGG16's come from torchvision (trained on ImageNet), the
heads, 1472 numbers, from the authors' package.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shapecodec.errors import BadArgument, BadFile

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
TOGETHER, VGG, HEADS = "lpips-vgg16.safetensors", "vgg16-397923af.pth", "lpips-vgg.pth"
HINT = (
    f"either {TOGETHER} (what `save_file(lpips.state_dict())` writes), or both {VGG} (torchvision's VGG16, IMAGENET1K_V1, "
    f"528 MB) and {HEADS} (lpips/weights/v0.1/vgg.pth of the lpips package, 7 KB), each also as .safetensors."
)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LEAST = 1e-10  # added to the lengths of feature vectors, as the published weights expect


class Lpips(nn.Module):
    """VGG16's five stages and a head of weights on each; made by `load_lpips`, or untrained for tests.

    Its parameters take no gradients. Keep it outside of a codec's own modules, or its weights are saved with the codec's.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        stages, width = [], 3
        for number, widths in enumerate(STAGES):
            layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if number else []
            for wider in widths:
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ParameterList([nn.Parameter(torch.ones(widths[-1])) for widths in STAGES])
        self.register_buffer("shift", torch.tensor(_SHIFT), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of pictures (B, H, W, 3) in [0, 1], of at least 16 x 16 pixels; differentiable in both.

        Features follow autocast; their differences are taken in float32.
        """
        if first.ndim != 4 or first.shape[3] != 3 or first.shape != second.shape or min(first.shape[1:3]) < 16:
            raise BadArgument(
                f"pictures (B, H, W, 3) of one shape and 16 pixels a side, got {tuple(first.shape)} and {tuple(second.shape)}.",
                where="lpips",
            )
        x, y = ((((2 * picture - 1) - self.shift) / self.scale).permute(0, 3, 1, 2) for picture in (first, second))
        total = first.new_zeros(len(first))
        for stage, head in zip(self.stages, self.heads, strict=True):
            x, y = stage(x), stage(y)
            with torch.autocast(x.device.type, enabled=False):
                square = (_unit(x) - _unit(y)).square()
                total = total + (square * head[:, None, None]).sum(1).mean((1, 2))
        return total


def load_lpips(folder: str | Path | None = None, device: torch.device | str = "cpu") -> Lpips:
    """LPIPS with its published weights, from files that are already there.

    Args:
        folder: where they lie, or the file that holds both; by default the folder where torchvision keeps its own
            (`torch.hub.get_dir()`/checkpoints).
        device: of the module.

    Raises:
        BadFile: files are missing, or hold other tensors; the message names the files and where they go.
    """
    place = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    model = Lpips()
    together = place if place.is_file() else place / TOGETHER
    if together.is_file():
        state = _read(together)
    else:
        vgg, heads = _found(place, VGG), _found(place, HEADS)
        if vgg is None or heads is None:
            lacking = [name for name, path in ((VGG, vgg), (HEADS, heads)) if path is None]
            raise BadFile(
                f"LPIPS lacks its weights {' and '.join(lacking)}.", where=str(place), hint=f"put there {HINT}"
            )
        state = _renamed(model, _read(vgg), _read(heads))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [name for name, shape in shapes.items() if name not in state or tuple(state[name].shape) != shape]
    if wrong:
        raise BadFile(
            f"no tensor {shapes[wrong[0]]} for {wrong[0]}.",
            where=str(together if together.is_file() else place),
            hint=HINT,
        )
    model.load_state_dict({name: state[name].float() for name in shapes})
    return model.to(device)


def _unit(features: Tensor) -> Tensor:
    """(B, C, H, W) float32 feature vectors, of length 1 unless 0."""
    features = features.float()
    length = (features.square().sum(1, keepdim=True) + 1e-20).sqrt()  # the slope of a bare root at 0 is infinite
    return features / (length + _LEAST)


def _found(folder: Path, name: str) -> Path | None:
    paths = (folder / name, (folder / name).with_suffix(".safetensors"))
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - runs no code
    return state


def _renamed(model: Lpips, vgg: dict[str, Tensor], heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """The module's names for torchvision's `features.N` and the authors' `linN.model.1.weight` (1, C, 1, 1)."""
    state, number = {}, 0
    for stage, layers in enumerate(model.stages):
        assert isinstance(layers, nn.Sequential)
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d):
                for part in ("weight", "bias"):
                    if f"features.{number}.{part}" in vgg:
                        state[f"stages.{stage}.{place}.{part}"] = vgg[f"features.{number}.{part}"]
            number += 1
        if f"lin{stage}.model.1.weight" in heads:
            state[f"heads.{stage}"] = heads[f"lin{stage}.model.1.weight"].flatten()
    return state
