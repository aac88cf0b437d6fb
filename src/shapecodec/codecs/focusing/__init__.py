"""Focusing: sparse voxels trained by rendering only what a view needs (paper 000_429aae4d51d49332)."""

from shapecodec.codecs.focusing.carve import Kept, carve, seen_voxels
from shapecodec.codecs.focusing.codec import Focusing
from shapecodec.codecs.focusing.config import FocusConfig, FocusingConfig, WeightsConfig
from shapecodec.codecs.focusing.field import FlexField
from shapecodec.codecs.focusing.halo import encoder_needs
from shapecodec.codecs.focusing.inputs import PointVoxels
from shapecodec.codecs.focusing.zoom import ZoomConfig, Zoomed, zoom

__all__ = [
    "FlexField",
    "FocusConfig",
    "Focusing",
    "FocusingConfig",
    "Kept",
    "PointVoxels",
    "WeightsConfig",
    "ZoomConfig",
    "Zoomed",
    "carve",
    "encoder_needs",
    "seen_voxels",
    "zoom",
]
