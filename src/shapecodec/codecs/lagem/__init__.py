"""LaGeM: hierarchical vector sets (ICLR 2025), and VecSet as their one-level case."""

from shapecodec.codecs.lagem.codec import Lagem
from shapecodec.codecs.lagem.config import LagemConfig
from shapecodec.codecs.lagem.field import QueryField
from shapecodec.codecs.lagem.inputs import OccupancyBatch, PointInputs

__all__ = ["Lagem", "LagemConfig", "OccupancyBatch", "PointInputs", "QueryField"]
