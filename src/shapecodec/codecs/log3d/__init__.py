"""LoG3D: ultra-high-resolution shapes from local to global (paper 2511.10040, supplement A)."""

from shapecodec.codecs.log3d.codec import Log3D
from shapecodec.codecs.log3d.config import Log3DConfig
from shapecodec.codecs.log3d.field import BlockField
from shapecodec.codecs.log3d.inputs import BlockInputs

__all__ = ["BlockField", "BlockInputs", "Log3D", "Log3DConfig"]
