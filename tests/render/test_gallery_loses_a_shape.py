"""The picture of many shapes: every shape in its own cell, whatever its frame, and nothing where there is none."""

import numpy as np
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh
from shapecodec.render.gallery import gallery
from shapecodec.render.shade import PAPER

CORNERS = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
FACES = torch.tensor([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                      [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
BOX = Mesh(CORNERS, FACES)


def cells(picture, columns, count, cell):
    """Share of each cell that is not paper."""
    pixels = np.asarray(picture)
    top = 20
    shares = []
    for index in range(count):
        y, x = top + index // columns * (cell[1] + 40), 36 + index % columns * cell[0]
        part = pixels[y : y + cell[1], x : x + cell[0]]
        shares.append(float((np.abs(part.astype(int) - PAPER).max(2) > 8).mean()))
    return shares


def test_shape_is_lost_or_appears_twice():
    far = Mesh(CORNERS * 300 + 1e4, FACES)
    picture = gallery([BOX, None, far], columns=2, cell=(80, 60))
    one, empty, other = cells(picture, 2, 3, (80, 60))
    assert one > 0.1 and empty == 0 and other == pytest.approx(one, abs=0.02)
    assert picture.size == (2 * 36 + 2 * 80, 20 + 2 * 100 + 20)


def test_captions_of_other_shapes():
    plain, named = gallery([BOX], columns=1, cell=(80, 60)), gallery([BOX], ["box"], columns=1, cell=(80, 60))
    assert plain.size == named.size and not np.array_equal(np.asarray(plain), np.asarray(named))
    for arguments in (([],), ([BOX], ["a", "b"])):
        with pytest.raises(BadArgument):
            gallery(*arguments)
