"""shapecodec: any triangle mesh into a compact latent and back, at up to 2048^3.

    >>> from shapecodec import Mesh, load_codec, metrics, read_mesh, write_mesh

The public names are imported when they are first used, because torch alone takes seconds and `shapecodec --help`
should not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shapecodec.codecs.registry import load_codec
    from shapecodec.evaluate import metrics
    from shapecodec.generate.registry import load_generator
    from shapecodec.io.latent_file import load_latents, save_latents
    from shapecodec.io.mesh_files import read_mesh, write_mesh
    from shapecodec.latents import Latents
    from shapecodec.mesh import Mesh

__all__ = [
    "Latents",
    "Mesh",
    "load_codec",
    "load_generator",
    "load_latents",
    "metrics",
    "read_mesh",
    "save_latents",
    "write_mesh",
]

_HOMES = {
    "Latents": "shapecodec.latents",
    "Mesh": "shapecodec.mesh",
    "load_codec": "shapecodec.codecs.registry",
    "load_generator": "shapecodec.generate.registry",
    "load_latents": "shapecodec.io.latent_file",
    "read_mesh": "shapecodec.io.mesh_files",
    "save_latents": "shapecodec.io.latent_file",
    "write_mesh": "shapecodec.io.mesh_files",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("shapecodec.evaluate.metrics")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'shapecodec' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
