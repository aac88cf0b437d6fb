"""A 3^3 convolution of small cubes as a matrix product: the weights, laid out along z.

Rows of a cube along z are contiguous in channels-last memory, so a window of several voxels is one long vector. Multiplying it by a
banded matrix gives several outputs at once: 32 channels become products of 128 x 64 and larger, which fill tensor cores that a
32 x 32 product leaves idle. The price is the band's zeros. The same layout holds the convolution of a nearest-neighbour upsampling
without ever forming the upsampled cube (8 taps an output instead of 27), and the adjoints of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

DENSE_SIZE = 4  # largest cube (input and output) worth one dense matrix: a 3^3 kernel joins most pairs of its voxels


@dataclass(frozen=True)
class Band:
    """Geometry of one banded product; all counts are voxels unless said otherwise.

    Row (ox, oy, zb) of parity (px, py) reads the x, y rows stride * o + p + first + (0 .. taps - 1), and of each the z window
    z_step * zb + z_first + (0 .. window - 1); it writes z_out consecutive outputs. Voxels outside the input are zero.
    """

    size_in: int
    rows: int  # per axis and parity
    parities: int  # per axis: 2 for an upsampling product
    taps: int  # per axis
    stride: int
    first: int
    z_step: int
    z_first: int
    window: int
    z_out: int

    @property
    def size_out(self) -> int:
        """Voxels an axis of the output."""
        return self.rows * self.parities

    @property
    def bands(self) -> int:
        """Windows along z."""
        return self.size_out // self.z_out

    def plane_map(self) -> Tensor:
        """(parities, taps, 3): which kernel index along x (or y) serves tap i of parity p."""
        table = torch.zeros(self.parities, self.taps, 3)
        for parity in range(self.parities):
            for tap in range(self.taps):
                for kernel in range(3):
                    table[parity, tap, kernel] = self._meets(parity, parity + self.first + tap, kernel)
        return table

    def z_map(self) -> Tensor:
        """(window, z_out, 3): which kernel index along z joins window voxel k to output voxel o."""
        table = torch.zeros(self.window, self.z_out, 3)
        for place in range(self.window):
            for out in range(self.z_out):
                for kernel in range(3):
                    table[place, out, kernel] = self._meets(out, self.z_first + place, kernel)
        return table

    def _meets(self, out: int, source: int, kernel: int) -> float:
        """1 where kernel index `kernel` joins input voxel `source` to output voxel `out`, both counted from a row's start."""
        if self.parities == 2:  # output 2x + p reads upsampled voxel 2x + p + kernel - 1, a copy of its half
            return float((out + kernel - 1) // 2 == source)
        if self.stride == 2:  # the adjoint of the above: upsampled voxel `source` was output, reading input `out`
            return float((source + (2 - kernel) - 1) // 2 == out)
        return float(source - out - self.first == kernel)


def plain(size: int, crop: int, z_out: int) -> Band:
    """The convolution itself, evaluated on the central (size - 2 * crop)^3 only; crop < 0 reads a cube cropped before."""
    rows = size - 2 * crop
    return Band(size, rows, 1, 3, 1, crop - 1, z_out, crop - 1, z_out + 2, z_out)


def upsampled(size: int, z_in: int) -> Band:
    """The convolution of the nearest-neighbour upsampling of a size^3 cube; z_in input voxels make a band."""
    return Band(size, size, 2, 2, 1, -1, z_in, -1, z_in + 2, 2 * z_in)


def upsampled_adjoint(size: int, z_in: int) -> Band:
    """Gradient of `upsampled` for its input: reads (2 * size)^3, writes size^3."""
    return Band(2 * size, size, 1, 4, 2, -1, 2 * z_in, -1, 2 * z_in + 2, z_in)


@lru_cache(maxsize=256)
def _maps(band: Band, device: torch.device) -> tuple[Tensor, Tensor]:
    return band.plane_map().to(device), band.z_map().to(device)


def banded_weight(weight: Tensor, band: Band) -> Tensor:
    """(C', C, 3, 3, 3) -> (parities^2, taps^2, window * C, z_out * C'), differentiable.

    For an adjoint band pass the weight with its channels exchanged and its kernel flipped (`adjoint_weight`).
    """
    plane, along = _maps(band, weight.device)
    plane, along = plane.to(weight.dtype), along.to(weight.dtype)
    wide = torch.tensordot(weight, along, dims=([4], [2]))  # o c a b k z
    wide = torch.tensordot(wide, plane, dims=([3], [2]))  # o c a k z q j
    wide = torch.tensordot(wide, plane, dims=([2], [2]))  # o c k z q j p i
    wide = wide.permute(6, 4, 7, 5, 2, 1, 3, 0)  # p q i j k c z o
    out_channels, channels = weight.shape[:2]
    return wide.reshape(band.parities**2, band.taps**2, band.window * channels, band.z_out * out_channels)


def adjoint_weight(weight: Tensor) -> Tensor:
    """(C', C, 3, 3, 3) -> (C, C', 3, 3, 3): the kernel of the gradient for the input."""
    return weight.transpose(0, 1).flip(2, 3, 4)


def dense_weight(weight: Tensor, size: int, *, up: bool, crop: int = 0) -> Tensor:
    """(C', C, 3, 3, 3) -> (size^3 * C, out^3 * C'): the whole convolution of a small cube as one matrix, differentiable."""
    source = torch.arange(size, device=weight.device)[:, None, None]
    out = torch.arange(2 * size if up else size - 2 * crop, device=weight.device)[None, :, None]
    kernel = torch.arange(3, device=weight.device)
    reads = torch.div(out + kernel - 1, 2, rounding_mode="floor") if up else out + crop + kernel - 1
    axis = (source == reads).to(weight.dtype)  # (size, out, 3)
    wide = torch.tensordot(weight, axis, dims=([4], [2]))  # o c a b z Z
    wide = torch.tensordot(wide, axis, dims=([3], [2]))  # o c a z Z y Y
    wide = torch.tensordot(wide, axis, dims=([2], [2]))  # o c z Z y Y x X
    wide = wide.permute(6, 4, 2, 1, 7, 5, 3, 0)  # x y z c X Y Z o
    return wide.reshape(size**3 * weight.shape[1], -1)


def dense_product(x: Tensor, matrix: Tensor, bias: Tensor, size: int) -> Tensor:
    """x (L, S, S, S, C) times a matrix of `dense_weight` -> (L, size, size, size, C')."""
    return (x.flatten(1) @ matrix).view(len(x), size, size, size, len(bias)) + bias
