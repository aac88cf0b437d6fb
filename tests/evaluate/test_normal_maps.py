import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.feature import canny as known_canny
from solids import cube, moved, sphere

from shapecodec.errors import BadArgument
from shapecodec.evaluate.canny import canny, crease_response, dilate
from shapecodec.evaluate.normal_maps import NORMAL_PROTOCOLS, NORMALS, normal_map_scores
from shapecodec.evaluate.views import Views, sphere_directions
from shapecodec.mesh import Mesh

SMALL = replace(NORMALS, views=Views(8, 160))
KEYS = ("nmse", "sne", "nmse_unsigned", "sne_unsigned")


def sheet(steps: int, height: float = 0.0) -> Mesh:
    """A square of 0.8 in the plane z = 0, folded to and fro along x by `height` if that is above 0."""
    x = torch.linspace(-0.4, 0.4, steps + 1)
    z = height * (torch.arange(steps + 1) % 2)
    vertices = torch.cat([torch.stack([x, torch.full_like(x, y), z], 1) for y in (-0.4, 0.4)])
    a = torch.arange(steps)
    b = a + steps + 1
    return Mesh(vertices, torch.cat([torch.stack([a, a + 1, b + 1], 1), torch.stack([a, b + 1, b], 1)]))


@pytest.mark.parametrize("shape", [(64, 64), (37, 51), (5, 200)])
@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.7])
def test_other_edges_than_a_known_library(shape, sigma):
    image = np.random.default_rng(0).random(shape)
    for low, high in ((0.1, 0.2), (0.4, 0.9)):
        expected = known_canny(image, sigma, low, high)
        assert (canny(image, sigma, low, high) != expected).sum() <= 1  # a near tie may fall either way
        assert (canny(image.astype(np.float32), sigma, low, high) != expected).sum() <= 1
    assert known_canny(image, sigma, 0.1, 0.2).sum() > 10


def test_steps_between_flat_colours_have_edges_within_a_pixel_of_the_known_ones():
    """Both sides of such a step have the same gradient, and rounding decides which one the library keeps."""
    blocks = np.kron(np.random.default_rng(1).random((6, 6)), np.ones((20, 20)))
    ours, known = canny(blocks, 1.0, 0.3, 0.6), known_canny(blocks, 1.0, 0.3, 0.6)
    assert known.sum() > 300
    assert not (ours & ~dilate(known, 1)).any() and not (known & ~dilate(ours, 1)).any()


def test_edges_depend_on_the_frame_of_the_normals():
    generator = np.random.default_rng(2)
    image = generator.normal(size=(40, 50, 3))
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    edges = canny(image, 1.0, 0.5, 1.5)
    assert 50 < edges.sum() < 1500
    assert (canny(image @ turn, 1.0, 0.5, 1.5) != edges).sum() <= 1


def test_grey_picture_has_other_edges_in_colour():
    image = np.random.default_rng(3).random((40, 50))
    colour = np.stack([image, -2 * image, 2 * image], -1) / 3
    assert (canny(colour, 1.0, 0.2, 0.6) != canny(image, 1.0, 0.2, 0.6)).sum() <= 1


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_crease_answers_to_another_angle(sigma):
    for degrees in (10.0, 30.0, 90.0):
        image = np.zeros((30, 30, 3))
        image[:, :15, 2] = 1.0
        image[:, 15:] = math.sin(math.radians(degrees)), 0.0, math.cos(math.radians(degrees))
        for turned in (image, image.transpose(1, 0, 2)):
            assert canny(turned, sigma, *[crease_response(degrees - 0.1, sigma)] * 2).sum() >= 28
            assert not canny(turned, sigma, *[crease_response(degrees + 0.1, sigma)] * 2).any()


def test_weak_edges_without_a_strong_one_are_kept():
    image = np.zeros((40, 40))
    image[:, 20:] = 0.2
    assert not canny(image, 1.0, 0.1, 1.0).any()
    image[:, 20:] = np.linspace(1.0, 0.2, 40)[:, None]  # the same line begins strong
    assert canny(image, 1.0, 0.1, 1.0)[30].any()


def test_bad_picture_or_thresholds_are_taken():
    for image in (np.zeros((0, 4)), np.zeros(4), np.zeros((4, 4), np.uint8)):
        with pytest.raises(BadArgument):
            canny(image, 1.0, 0.1, 0.2)
    for values in ((0.0, 0.1, 0.2), (1.0, 0.0, 0.2), (1.0, 0.3, 0.2)):
        with pytest.raises(BadArgument):
            canny(np.zeros((4, 4)), *values)


def test_dilation_against_every_window():
    mask = np.random.default_rng(4).random((13, 17)) < 0.03
    padded = np.pad(mask, 2)
    expected = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).any((2, 3))
    np.testing.assert_array_equal(dilate(mask, 2), expected)
    np.testing.assert_array_equal(dilate(mask, 0), mask)


def test_the_same_mesh_is_not_perfect():
    result = normal_map_scores(sphere(), sphere(), SMALL)
    assert all(result[key] == 0.0 for key in KEYS) and result["overlap"] == 1.0
    assert all(0.0 <= result["floor"][key] < 1e-4 for key in KEYS)


def test_other_triangles_of_the_same_surface_cost_more_than_the_floor_allows():
    coarse, fine = cube(3), cube(24)
    result = normal_map_scores(fine, coarse, SMALL)
    assert all(result[key] < 1e-2 for key in KEYS) and result["overlap"] > 0.999
    assert normal_map_scores(cube(24, 0.05), coarse, SMALL)["sne"] > 20 * result["sne"]


def test_winding_counts_where_it_should_not():
    mesh = sphere()
    inside_out = Mesh(mesh.vertices, mesh.faces.flip(1))
    for one, two in ((inside_out, mesh), (mesh, inside_out)):
        result = normal_map_scores(one, two, SMALL, floor=False)
        assert result["nmse"] == pytest.approx(4 / 3, rel=1e-5) and result["sne"] == pytest.approx(4 / 3, rel=1e-5)
        assert result["nmse_unsigned"] == pytest.approx(0, abs=1e-12) and result["floor"] is None


def test_mixed_winding_makes_edges():
    """The mask of a sheet whose faces are wound at random holds its outline only."""
    flat, generator = sheet(12), torch.Generator().manual_seed(0)
    flip = torch.rand(len(flat.faces), generator=generator) < 0.5
    mixed = Mesh(flat.vertices, torch.where(flip[:, None], flat.faces.flip(1), flat.faces))
    shares = [normal_map_scores(flat, mesh, SMALL, floor=False)["mask_share"] for mesh in (flat, mixed)]
    assert 0.05 < shares[0] < 0.5 and shares[1] == shares[0]


def test_tilt_of_known_size():
    """Normals that lean by an angle to either side differ by 4 sin^2(angle / 2), a third of it a component; one view is along z."""
    height, steps = 0.004, 40
    angle = math.atan(height / (0.8 / steps))
    result = normal_map_scores(sheet(steps, height), sheet(steps), replace(SMALL, views=Views(1, 300)))
    assert result["nmse"] == pytest.approx(4 * math.sin(angle / 2) ** 2 / 3, rel=0.1)
    assert result["overlap"] > 0.9


def test_missing_surface_is_not_counted():
    """Nothing of the prediction in the picture: each pixel costs a third, whatever the normals."""
    result = normal_map_scores(moved(sphere(), 5.0, 5.0, 5.0), sphere(), SMALL)
    assert all(result[key] == pytest.approx(1 / 3, rel=1e-6) for key in KEYS) and result["overlap"] == 0.0
    assert all(result["both"][key] is None for key in KEYS)


def test_half_of_the_surface_costs_where_both_are_seen():
    whole = sphere()
    half = Mesh(whole.vertices, whole.faces[whole.vertices[whole.faces].mean(1)[:, 0] > 0])
    result = normal_map_scores(half, whole, replace(SMALL, views=Views(1, 200)), floor=False)  # from +z
    assert result["overlap"] == pytest.approx(0.5, abs=0.02) and result["nmse"] == pytest.approx(0.5 / 3, abs=0.01)
    assert result["both"]["nmse"] == 0.0


def test_blunt_edges_show_in_nmse_rather_than_sne():
    result = normal_map_scores(cube(rounding=0.03), cube(), SMALL)
    assert result["sne"] > 3 * result["nmse"] > 0
    bumpy = cube(24)
    bumpy.vertices[(bumpy.vertices.abs() < 0.39).sum(1) == 2] += 0.004 * torch.randn(
        int(((bumpy.vertices.abs() < 0.39).sum(1) == 2).sum()), 3, generator=torch.Generator().manual_seed(0)
    )
    rough = normal_map_scores(bumpy, cube(), SMALL)
    assert rough["sne"] < 1.5 * rough["nmse"]


def test_scale_and_position_change_the_scores():
    one, two = cube(rounding=0.05), cube()
    before = normal_map_scores(one, two, SMALL)
    after = normal_map_scores(*(moved(mesh, 3.0, -2.0, 7.0, scale=64.0) for mesh in (one, two)), SMALL)
    for key in KEYS:
        assert after[key] == pytest.approx(before[key], rel=0.02)


def test_result_depends_on_threads():
    one, two = cube(rounding=0.05), cube()
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(normal_map_scores(one, two, SMALL))
    torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_what_cannot_be_seen_is_a_number():
    """A needle thinner than a pixel misses all pixel centres."""
    needle = Mesh(torch.tensor([[0.0, 0, 0], [0.8, 0, 1e-7], [0.8, 1e-7, 0]]), torch.tensor([[0, 1, 2]]))
    result = normal_map_scores(needle, needle, replace(SMALL, views=Views(2, 8)))
    assert result["nmse"] is None and result["sne"] is None and result["overlap"] is None


def test_frozen_protocol_changed():
    """Whoever changes a protocol gives it a new name."""
    assert list(NORMAL_PROTOCOLS) == ["normals-v1"]
    assert NORMALS.views == Views(24, 512, 1.05) and NORMALS.views.name == "fibonacci-24"
    assert NORMALS.mask() == {"sigma": 1.0, "low_degrees": 15.0, "high_degrees": 30.0, "dilation": 2}
    directions = sphere_directions(24)
    np.testing.assert_allclose(directions.norm(dim=1), 1, atol=1e-12)
    np.testing.assert_allclose(directions[0], [0.0, 0.958333, 0.285652], atol=1e-6)
    np.testing.assert_allclose(directions[7], [-0.8227, 0.375, -0.4273], atol=1e-4)
    assert directions.sum(0).norm() < 0.2


def test_views_that_cut_off_the_shape():
    mesh = cube(2)
    for camera in Views(9, 64).cameras(mesh):
        pixels = camera.project(mesh.vertices)[0]
        assert pixels.min() > 0 and pixels.max() < 64
    with pytest.raises(BadArgument):
        Views(0, 64)
    with pytest.raises(BadArgument):
        Views(3, 64, 0.9)
