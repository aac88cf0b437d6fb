"""Out of a run folder: its averaged weights, in a codec or as a codec folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load_file

from shapecodec.codecs.base import Trainable
from shapecodec.errors import BadArgument
from shapecodec.train.checkpoint import latest_checkpoint
from shapecodec.train.folder import CHECKPOINTS


@runtime_checkable
class Savable(Protocol):
    """A codec that writes itself as a codec folder."""

    def save(self, folder: Path) -> Any:
        """Configuration and weights, into a new folder."""
        ...


def export_codec(folder: Path, codec: Trainable) -> None:
    """Replace `folder`/codec (or what `export_folder` says) by the codec as it is; an old one stays until the new is complete."""
    if not isinstance(codec, Savable):
        return
    name = codec.export_folder
    target, staged, old = folder / name, folder / f".{name}.staged", folder / f".{name}.old"
    for left in (staged, old):
        shutil.rmtree(left, ignore_errors=True)
    codec.save(staged)
    if target.exists():
        target.replace(old)
    staged.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def load_average(folder: Path | str, codec: Trainable, width: float | None = None) -> Path:
    """Put averaged weights of the newest intact checkpoint of a run into `codec`; returns the checkpoint.

    Args:
        folder: of the run.
        codec: of the run's configuration.
        width: one of the run's `ema_widths`; None takes the weights themselves.

    Raises:
        BadArgument: the run has no checkpoint, or keeps no average of this width.
    """
    checkpoint = latest_checkpoint(Path(folder) / CHECKPOINTS)
    if checkpoint is None:
        raise BadArgument("the run has no checkpoint.", where=str(folder))
    path = checkpoint / ("model.safetensors" if width is None else f"ema-{width:g}.safetensors")
    if not path.exists():
        kept = ", ".join(sorted(p.stem.removeprefix("ema-") for p in checkpoint.glob("ema-*"))) or "none"
        raise BadArgument(f"no average of width {width} is kept.", where=str(folder), hint=f"one of: {kept}.")
    codec.load_state_dict(load_file(path))
    return checkpoint
