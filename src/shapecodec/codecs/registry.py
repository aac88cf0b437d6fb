"""Which class a codec folder's `kind` names. Explicit: a file never decides what is imported."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

import torch

from shapecodec.codecs.base import Codec
from shapecodec.errors import BadFile
from shapecodec.io.codec_folder import CONFIG, load_weights, read_header
from shapecodec.io.codec_locate import bundled_names, locate
from shapecodec.io.config_json import config_from_json

# kind -> module, codec class, configuration class; imported when a codec of that kind is loaded.
KINDS = {
    "log3d": ("shapecodec.codecs.log3d", "Log3D", "Log3DConfig"),
    "focusing": ("shapecodec.codecs.focusing", "Focusing", "FocusingConfig"),
    "lagem": ("shapecodec.codecs.lagem", "Lagem", "LagemConfig"),
}

__all__ = ["KINDS", "bundled_names", "load_codec"]


def load_codec(name_or_path: str | Path, device: torch.device | str = "cpu") -> Codec:
    """A codec, ready to use (evaluation mode), from a bundled name, a folder, a run folder or a hub id.

    Args:
        name_or_path: e.g. log3d-base, runs/mine, ./my-codec or org/name@revision.
        device: where its weights go.

    Raises:
        BadFile: no such codec, an unknown kind or format version, weights that are damaged or do not fit.
    """
    folder = locate(name_or_path)
    header = read_header(folder)
    kind = header.get("kind")
    if kind not in KINDS:
        raise BadFile(
            f"unknown kind of codec {kind!r}.", where=str(folder / CONFIG), hint=f"one of {', '.join(KINDS)}."
        )
    module, codec_name, config_name = KINDS[kind]
    codec_class, config_class = getattr(import_module(module), codec_name), getattr(import_module(module), config_name)
    config = config_from_json(config_class, header.get("config"), where=str(folder / CONFIG))
    stored = str(header.get("codec_hash", ""))
    codec = cast(Codec, load_weights(folder, lambda: codec_class(config), stored))
    codec.name, codec.codec_hash = str(header.get("name") or kind), stored
    return codec.to(device).eval()
