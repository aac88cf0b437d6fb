"""Codecs: the interface in `base`, one package for each, and `load_codec`."""

from shapecodec.codecs.registry import bundled_names, load_codec

__all__ = ["bundled_names", "load_codec"]
