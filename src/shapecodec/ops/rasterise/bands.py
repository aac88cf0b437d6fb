"""An image cut into bands of rows, each the work of one thread: no two threads touch one pixel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

BANDS = 16


def in_bands(height: int, draw: Callable[[int, int], None], bands: int = BANDS) -> None:
    """Call draw(first row, end row) for every band of an image, a few at a time."""
    rows = [height * band // bands for band in range(bands + 1)]
    with ThreadPoolExecutor(min(bands, torch.get_num_threads())) as pool:
        list(pool.map(draw, rows[:-1], rows[1:]))
