"""What every codec decodes to: something that can be sampled and turned into a mesh."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from shapecodec.mesh import Mesh


class Field(Protocol):
    """A shape in the unit cube. LoG3D's is `codecs.log3d.field.BlockField`."""

    def sample(self, points: Tensor) -> Tensor:
        """Field values (Q,) float32 at points (Q, 3) of the unit cube."""
        ...

    def to_mesh(self, resolution: int | None = None) -> Mesh:
        """The surface, in the unit cube; `resolution` None means the field's own."""
        ...
