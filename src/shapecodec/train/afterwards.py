"""An average of any width, chosen after the run, out of the averages that its checkpoints hold.

Averages of two widths at a dozen moments span the space in which nearly every other average lies (Karras et al. 2024,
arXiv 2312.02696, section 3.2 and algorithm 3): the one wanted is their combination with the least squared error of the profile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from shapecodec.codecs.base import Trainable
from shapecodec.errors import BadArgument
from shapecodec.train.checkpoint import damaged_file
from shapecodec.train.ema import power_exponent
from shapecodec.train.folder import CHECKPOINTS


def profile_products(steps: np.ndarray, exponents: np.ndarray, step: float, exponent: float) -> np.ndarray:
    """(K,) integrals of the averaging profiles that end at `steps` with `exponents`, times the one at `step` (eq. 22 there)."""
    earlier = np.minimum(steps, step)
    power = np.where(steps < step, exponent, exponents)
    later = np.maximum(steps, step)
    scale = (exponents + 1) * (exponent + 1) / ((exponents + exponent + 1) * later)
    return scale * (earlier / later) ** power


def combination(held: Sequence[tuple[int, float]], step: int, width: float) -> np.ndarray:
    """(K,) factors of the averages `held`, (step, width) each, that come nearest to the average of `width` at `step`.

    Raises:
        BadArgument: no averages, or a width that no average has.
    """
    if not held:
        raise BadArgument("no averages were given.", where="combination")
    steps = np.array([float(at) for at, _ in held])
    exponents = np.array([power_exponent(each) for _, each in held])
    grams = np.stack(
        [profile_products(steps, exponents, at, power) for at, power in zip(steps, exponents, strict=True)]
    )
    wanted = profile_products(steps, exponents, float(step), power_exponent(width))
    return np.linalg.lstsq(grams, wanted, rcond=1e-12)[0]


def average_afterwards(run: Path | str, width: float) -> dict[str, Tensor]:
    """Weights of the end of a run, averaged with another width than the run kept: a state dict, in float32 on the CPU.

    The run should keep two widths, such as (0.05, 0.1), and a dozen checkpoints or more (`RunConfig.keep`); each is read once.

    Args:
        run: its folder.
        width: relative width of the average, in (0, 0.288).

    Raises:
        BadArgument: the run keeps no intact checkpoint with averages.
    """
    held: list[tuple[int, float]] = []
    files: list[Path] = []
    for checkpoint in sorted((Path(run) / CHECKPOINTS).glob("step-*")):
        if damaged_file(checkpoint) is not None:
            continue
        step = int(json.loads((checkpoint / "state.json").read_text())["step"])
        for path in sorted(checkpoint.glob("ema-*.safetensors")) if step else ():
            held.append((step, float(path.stem.removeprefix("ema-"))))
            files.append(path)
    if not held:
        raise BadArgument("no checkpoint holds an average.", where=str(run), hint="ema_widths=(0.05, 0.1).")
    last = max(step for step, _ in held)
    total: dict[str, Tensor] = {}
    for path, factor in zip(files, combination(held, last, width), strict=True):
        for name, value in load_file(path).items():
            if value.is_floating_point():
                total[name] = total.get(name, torch.zeros(value.shape)) + float(factor) * value.float()
            else:
                total[name] = value
    return total


def load_afterwards(run: Path | str, module: Trainable, width: float) -> None:
    """Put `average_afterwards` into a codec or generator of the run's configuration; `save` then writes it as a folder."""
    module.load_state_dict(average_afterwards(run, width))
