import numpy as np
import pytest

from shapecodec.io.parse import weld
from shapecodec.io.parse.weld import drop_unused, weld_exact


@pytest.mark.parametrize("collide", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_against_numpy_unique(count, collide, monkeypatch):
    """Also when every hash is one of eight: equal rows merge, others do not."""
    if collide:
        monkeypatch.setattr(weld, "_hash_rows", lambda words: ((words[:, 0] % 8).astype(np.uint64)) << np.uint64(60))
    random = np.random.default_rng(count)
    vertices = random.integers(-3, 4, (count, 3)).astype(np.float32)
    faces = random.integers(0, max(count, 1), (count, 3)).astype(np.int32)
    merged, numbered = weld_exact(vertices, faces)
    assert len(merged) == len(np.unique(vertices, axis=0))
    if count:
        np.testing.assert_array_equal(merged[numbered], vertices[faces])
        order = np.sort(np.unique(vertices, axis=0, return_index=True)[1])
        np.testing.assert_array_equal(merged, vertices[order])  # first appearance


def test_signed_zeros_are_one_point():
    vertices = np.array([[0.0, 1, 2], [-0.0, 1, 2], [3, -0.0, 0]], np.float32)
    merged, faces = weld_exact(vertices, np.array([[0, 1, 2]], np.int32))
    assert len(merged) == 2
    np.testing.assert_array_equal(faces, [[0, 0, 1]])


def test_neighbouring_floats_stay_apart():
    vertices = np.array([[1, 0, 0], [np.nextafter(np.float32(1), np.float32(2)), 0, 0]], np.float32)
    assert len(weld_exact(vertices, np.array([[0, 1, 0]], np.int32))[0]) == 2


def test_drop_unused():
    vertices, faces = drop_unused(np.arange(15.0).reshape(5, 3), np.array([[4, 1, 3]]))
    np.testing.assert_array_equal(vertices, np.arange(15.0).reshape(5, 3)[[1, 3, 4]])
    np.testing.assert_array_equal(faces, [[2, 0, 1]])
