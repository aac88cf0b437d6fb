"""Bends: smooth maps of space that make new shapes of stored points without new labels.

x -> x + a sin(u y + v z + p), and the same for the other axes in turn. Each is a shear: one to one whatever its size, so what was
inside stays inside, and its determinant is 1, so what was uniform stays uniform. Not in the papers; `docs/notebook.md` says why.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

AMPLITUDE = 0.15  # largest, in the radius of the unit sphere
WAVES = 4.0  # largest wave number an axis, in radians a radius
_OTHERS = ((1, 2), (2, 0), (0, 1))


class Bends(NamedTuple):
    """Three shears for each of B shapes, along x, y and z in this order.

    Args:
        amplitude: (B, 3) float32.
        waves: (B, 3, 2) float32, over the two other axes in cyclic order.
        phase: (B, 3) float32.
    """

    amplitude: Tensor
    waves: Tensor
    phase: Tensor

    @classmethod
    def of(cls, uniform: Tensor, share: float) -> Bends:
        """From numbers (B, 13) uniform in [0, 1): the shape is bent if the first is below `share`."""
        bent = (uniform[:, :1] < share).to(uniform.dtype)
        amplitude = AMPLITUDE * (2 * uniform[:, 1:4] - 1) * bent
        waves = WAVES * (2 * uniform[:, 4:10] - 1)
        return cls(amplitude, waves.view(-1, 3, 2), 2 * torch.pi * uniform[:, 10:13])

    def points(self, points: Tensor) -> Tensor:
        """(B, N, 3) -> (B, N, 3)."""
        columns = list(points.unbind(2))
        for axis in range(3):
            columns[axis] = columns[axis] + self.amplitude[:, axis, None] * self._angle(columns, axis).sin()
        return torch.stack(columns, 2)

    def normals(self, normals: Tensor, points: Tensor) -> Tensor:
        """Normals (B, N, 3) at points (B, N, 3) before the bend -> after it, by the inverse transpose of its derivative."""
        columns, turned = list(points.unbind(2)), list(normals.unbind(2))
        for axis, others in enumerate(_OTHERS):
            angle = self._angle(columns, axis)
            slope = self.amplitude[:, axis, None] * angle.cos() * turned[axis]
            for number, other in enumerate(others):
                turned[other] = turned[other] - self.waves[:, axis, number, None] * slope
            columns[axis] = columns[axis] + self.amplitude[:, axis, None] * angle.sin()
        return torch.stack(turned, 2)

    def _angle(self, columns: list[Tensor], axis: int) -> Tensor:
        one, other = _OTHERS[axis]
        waves = self.waves[:, axis]
        return waves[:, :1] * columns[one] + waves[:, 1:] * columns[other] + self.phase[:, axis, None]
