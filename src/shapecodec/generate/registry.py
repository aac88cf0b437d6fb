"""Which class a generator folder's `kind` names. Explicit: a file never decides what is imported."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

import torch

from shapecodec.errors import BadFile
from shapecodec.generate.base import Generator
from shapecodec.io.codec_folder import CONFIG, load_weights, read_header
from shapecodec.io.codec_locate import locate
from shapecodec.io.config_json import config_from_json

# kind -> module, generator class, configuration class
GENERATORS = {
    "lagem-cascade": ("shapecodec.generate.cascade", "Cascade", "CascadeConfig"),
}


def load_generator(name_or_path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """A generator, ready to use (evaluation mode), from a folder, a run folder, a hub id or a bundled name (none ships yet).

    Args:
        name_or_path: e.g. runs/mine, ./my-generator or org/name@revision.
        device: where its weights go.

    Raises:
        BadFile: no such generator, a codec instead of one, an unknown kind or format version, or weights that are damaged or do
            not fit.
    """
    folder = locate(name_or_path, "generator")
    header = read_header(folder, "generator")
    kind = header.get("kind")
    if kind not in GENERATORS:
        hint = f"one of {', '.join(GENERATORS)}."
        raise BadFile(f"unknown kind of generator {kind!r}.", where=str(folder / CONFIG), hint=hint)
    module, name, config_name = GENERATORS[kind]
    generator_class, config_class = getattr(import_module(module), name), getattr(import_module(module), config_name)
    config = config_from_json(config_class, header.get("config"), where=str(folder / CONFIG))
    stored = str(header.get("codec_hash", ""))
    generator = cast(Generator, load_weights(folder, lambda: generator_class(config), stored))
    generator.name, generator.codec_hash = str(header.get("name") or kind), stored
    return generator.to(device).eval()
