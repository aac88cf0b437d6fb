"""Every kind over many seeds: valid, inside the cube, small enough, and a function of its seed alone."""

import numpy as np
import pytest
import torch

from shapecodec.data.procedural import KINDS, MAX_FACES, procedural_arrays, procedural_mesh
from shapecodec.data.procedural.parts import box, circle, extrude, extrude_ring, rounded_box, sphere, sweep, torus
from shapecodec.data.procedural.sheets import thickened
from shapecodec.data.procedural.solids import cut, cut_convex
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh
from shapecodec.rng import numpy_rng, rng

SEEDS = range(12)


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_every_kind_is_valid_and_in_bounds(kind):
    sizes = set()
    for seed in SEEDS:
        mesh = procedural_mesh(np.random.default_rng(seed), kind)  # Mesh validates indices, extent and finiteness
        low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
        assert low.min() >= -0.4751 and high.max() <= 0.4751
        assert float((high - low).max()) == pytest.approx(0.95, abs=1e-5)
        assert len(mesh.faces) <= MAX_FACES
        assert len(mesh.faces.unique()) == len(mesh.vertices), "augmentation takes every vertex for a used one"
        sizes.add(len(mesh.faces))
    assert len(sizes) > 3, "seeds should give different shapes"


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_same_seed_gives_the_same_mesh(kind):
    first, second = (procedural_arrays(numpy_rng(3, 7), kind) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_torch_generator_is_a_seed_too():
    one, two, other = (procedural_mesh(rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.vertices, two.vertices)
    assert one.vertices.shape != other.vertices.shape or not torch.equal(one.vertices, other.vertices)


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(BadArgument, match="foliage"):
        procedural_mesh(np.random.default_rng(0), "teapot")


def volume(shape):
    corners = shape[0][shape[1]]
    return float(np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (box((1, 2, 3)), 6.0),
        (sphere(64, 128), 4 / 3 * np.pi),
        (extrude(circle(256), 2.0), 2 * np.pi),
        (extrude_ring(circle(256, 2.0), circle(256), 1.0), 3 * np.pi),
        (torus(256, 128, 0.25), 2 * np.pi**2 * 0.25**2),
        (rounded_box(np.array([2.0, 2, 2]), 0.999, 16), 4 / 3 * np.pi),
        (sweep(np.linspace([0, 0, 0], [0.0, 0, 3], 4), circle(256, 0.5)), 0.75 * np.pi),
        (cut_convex(box((2, 2, 2)), np.array([1.0, 0, 0]), 0.25), 5.0),
    ],
)
def test_bricks_face_outward_and_enclose_their_volume(shape, expected):
    assert volume(shape) == pytest.approx(expected, rel=5e-3)


def test_closed_bricks_are_watertight():
    plane = np.array([0.6, 0.64, 0.48])
    for shape in (box(), extrude(circle(7), 1.0), torus(8, 5, 0.3), cut_convex(box((2, 2, 2)), plane, 0.4)):
        assert Mesh.from_arrays(*shape).is_watertight()


def test_cut_keeps_the_surface_on_one_side_only():
    shape = sphere(20, 40)
    normal = np.array([0.0, 0.8, 0.6])
    part = cut(shape, normal, 0.3)
    assert (part[0] @ normal).max() <= 0.3 + 1e-5
    area = float(Mesh.from_arrays(*part).face_areas().sum())
    assert area == pytest.approx(2 * np.pi * 1.3, rel=0.02)  # a cap's area is 2 pi times its height


def test_thickened_sheet_is_closed_and_as_thick_as_asked():
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]), np.array([[0, 2, 1], [0, 3, 2]])
    solid = thickened(square, 0.1)
    assert Mesh.from_arrays(*solid).is_watertight()
    assert volume(solid) == pytest.approx(0.1)
