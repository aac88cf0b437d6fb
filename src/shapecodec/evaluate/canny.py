"""Edges in pictures of one or more channels (Canny 1986), on the CPU.

A picture of normals has three channels, and an edge may show in any of them. The gradient is therefore that of a vector
image (Di Zenzo 1986): the direction in which the vector changes most, and how much it does so. It does not depend on the
frame in which the normals are written, and with one channel it is the ordinary gradient.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from shapecodec.errors import BadArgument

EQUAL = 1e-5  # gradients this close count as equal: both sides of a step between two flat colours are, but for rounding


def canny(image: np.ndarray, sigma: float, low: float, high: float) -> np.ndarray:
    """(H, W) bool: thin lines along the largest gradients.

    The picture is smoothed by a Gaussian cut off at 4 sigma, renormalised at the borders; gradients are Sobel sums
    (slope times 8). A pixel stays where its gradient is no smaller than both interpolated neighbours across the edge and at
    least `low`, and where a chain of such pixels, each beside the next, leads to one of at least `high`. The outermost
    pixels are never edges.

    Args:
        image: (H, W) or (H, W, C) float32 or float64.
        sigma: of the Gaussian in pixels, above 0.
        low: threshold in units of the image times 8 a pixel, above 0; `crease_response` gives that of an angle.
        high: at least `low`.

    Raises:
        BadArgument: a shape or type that is no image, or thresholds or a sigma out of range.
    """
    if image.ndim not in (2, 3) or image.size == 0 or image.dtype not in (np.float32, np.float64):
        raise BadArgument(f"expected (H, W) or (H, W, C) floats, got {image.shape} {image.dtype}.", where="canny")
    if not (sigma > 0 and 0 < low <= high):
        raise BadArgument(f"sigma {sigma}, thresholds {low} and {high}.", where="canny", hint="0 < low <= high.")
    height, width = image.shape[:2]
    flat = np.ascontiguousarray(image).reshape(height, -1)
    kernel = gaussian_kernel(sigma).astype(image.dtype)
    smooth = np.zeros_like(flat)
    _smooth(flat, kernel, flat.shape[1] // width, smooth)
    gradients = np.zeros((3, height, width), image.dtype)
    _gradients(smooth.reshape(height, width, -1), gradients)
    thin = np.zeros((height, width), np.uint8)
    _thin(gradients, low, high, thin)
    return _connected(thin)


def gaussian_kernel(sigma: float) -> np.ndarray:
    """(2 r + 1,) float64 samples of a Gaussian that sum to 1, r = 4 sigma rounded."""
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return kernel / kernel.sum()


def crease_response(degrees: float, sigma: float) -> float:
    """The gradient that `canny` finds at a straight crease between two planes whose unit normals differ by an angle.

    For a crease along a row or column of pixels: the normals differ by 2 sin(angle / 2), and the Sobel sum of a smoothed
    unit step is 4 times the kernel's two middle weights.
    """
    kernel = gaussian_kernel(sigma)
    middle = len(kernel) // 2
    step = float(kernel[middle] + (kernel[middle + 1] if middle else 0.0))
    return 2 * math.sin(math.radians(degrees) / 2) * 4 * step


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) bool: the pixels within a square of 2 * radius + 1 pixels around a True one."""
    grown = np.zeros_like(mask)
    _dilate(mask, radius, grown)
    return grown


@njit(cache=True, nogil=True)
def _dilate(mask: np.ndarray, radius: int, grown: np.ndarray) -> None:
    height, width = mask.shape
    for i in range(height):
        for j in range(width):
            if mask[i, j]:
                for y in range(max(i - radius, 0), min(i + radius + 1, height)):
                    for x in range(max(j - radius, 0), min(j + radius + 1, width)):
                        grown[y, x] = True


@njit(cache=True, nogil=True)
def _smooth(image: np.ndarray, kernel: np.ndarray, channels: int, out: np.ndarray) -> None:
    """Columns, then rows, of (H, W * C); what lies outside has no weight."""
    height, length, reach = image.shape[0], image.shape[1], len(kernel) // 2
    row, share = np.zeros(length, image.dtype), np.zeros(length, image.dtype)
    ones = np.ones(length, image.dtype)
    for k in range(-reach, reach + 1):
        _add_shifted(ones, k * channels, kernel[k + reach], share)
    for i in range(height):
        row[:] = 0
        weight = image.dtype.type(0)
        for k in range(max(-reach, -i), min(reach, height - 1 - i) + 1):
            weight += kernel[k + reach]
            _add_shifted(image[i + k], 0, kernel[k + reach], row)
        target = out[i]
        for k in range(-reach, reach + 1):
            _add_shifted(row, k * channels, kernel[k + reach], target)
        for q in range(length):
            target[q] /= share[q] * weight


@njit(cache=True, nogil=True)
def _add_shifted(row: np.ndarray, shift: int, weight: float, out: np.ndarray) -> None:
    """out[q] += weight * row[q + shift] where both exist; on slices, whose plain indices LLVM turns into vectors."""
    length = len(row) - abs(shift)
    if length <= 0:
        return
    source, target = row[max(shift, 0) :], out[max(-shift, 0) :]
    for q in range(length):
        target[q] += weight * source[q]


@njit(cache=True, nogil=True)
def _gradients(image: np.ndarray, out: np.ndarray) -> None:
    """(3, H, W) length of the gradient, and a vector along it (down, right) of any length and sign."""
    height, width, channels = image.shape
    for i in range(height):
        above, below = max(i - 1, 0), min(i + 1, height - 1)
        for j in range(width):
            left, right = max(j - 1, 0), min(j + 1, width - 1)
            xx, yy, xy = 0.0, 0.0, 0.0
            for c in range(channels):
                x = (image[above, right, c] - image[above, left, c]) + (image[below, right, c] - image[below, left, c])
                x += 2 * (image[i, right, c] - image[i, left, c])
                y = (image[below, left, c] - image[above, left, c]) + (image[below, right, c] - image[above, right, c])
                y += 2 * (image[below, j, c] - image[above, j, c])
                xx, yy, xy = xx + x * x, yy + y * y, xy + x * y
            # the larger eigenvalue of [[xx, xy], [xy, yy]] and its vector
            half = 0.5 * (xx - yy)
            root = np.sqrt(half * half + xy * xy)
            out[0, i, j] = np.sqrt(0.5 * (xx + yy) + root)
            if half >= 0:
                out[1, i, j], out[2, i, j] = xy, half + root
            else:
                out[1, i, j], out[2, i, j] = root - half, xy


@njit(cache=True, nogil=True)
def _thin(gradients: np.ndarray, low: float, high: float, out: np.ndarray) -> None:
    """1 where the gradient is a maximum across the edge and at least `low`, 2 where at least `high`."""
    length, down, right = gradients[0], gradients[1], gradients[2]
    height, width = length.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            value = length[i, j]
            if value < low:
                continue
            y, x = abs(down[i, j]), abs(right[i, j])
            side = 1 if down[i, j] * right[i, j] >= 0 else -1
            if y > x:
                share, a, b, c, d = x / y, 1, 0, 1, side
            else:
                share, a, b, c, d = y / x, 0, 1, side, 1
            ahead = (1 - share) * length[i + a, j + b] + share * length[i + c, j + d]
            behind = (1 - share) * length[i - a, j - b] + share * length[i - c, j - d]
            most = value * (1 + EQUAL)
            if ahead <= most and behind <= most:
                out[i, j] = 2 if value >= high else 1


@njit(cache=True, nogil=True)
def _connected(thin: np.ndarray) -> np.ndarray:
    """(H, W) bool: what is reached from a 2 over pixels above 0, diagonal steps included."""
    height, width = thin.shape
    found = np.zeros((height, width), np.bool_)
    stack = np.zeros((height * width, 2), np.int32)
    for i in range(height):
        for j in range(width):
            if thin[i, j] != 2 or found[i, j]:
                continue
            found[i, j] = True
            stack[0, 0], stack[0, 1] = i, j
            depth = 1
            while depth > 0:
                depth -= 1
                y, x = stack[depth, 0], stack[depth, 1]
                for v in range(max(y - 1, 0), min(y + 2, height)):
                    for u in range(max(x - 1, 0), min(x + 2, width)):
                        if thin[v, u] > 0 and not found[v, u]:
                            found[v, u] = True
                            stack[depth, 0], stack[depth, 1] = v, u
                            depth += 1
    return found
