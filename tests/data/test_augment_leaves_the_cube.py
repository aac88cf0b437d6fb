import pytest
import torch

from shapecodec.data.augment import Augment, augmented, random_cube_rotation, random_linear, random_rotation, together
from shapecodec.data.procedural import procedural_mesh
from shapecodec.mesh import Mesh
from shapecodec.rng import numpy_rng, rng


def sample(seed=0, kind="clutter"):
    return procedural_mesh(numpy_rng(seed), kind)


@pytest.mark.parametrize("units", [1.0, 1e-3, 1e4])
def test_views_stay_inside_with_their_margin(units):
    mesh = sample()
    far = Mesh(mesh.vertices * units + 5 * units, mesh.faces)
    config = Augment()
    generator = rng(0)
    longest = []
    for _ in range(200):
        view = augmented(far, generator, config)
        low, high = view.bounds()
        assert float(low.min()) >= config.margin - 0.5 - 1e-5 and float(high.max()) <= 0.5 - config.margin + 1e-5
        longest.append(float((high - low).max()))
        assert view.faces is far.faces
    assert config.fill[0] - 1e-4 <= min(longest) < 0.55 and 0.9 < max(longest) <= config.fill[1] + 1e-4


def test_same_counters_give_the_same_view():
    mesh = sample()
    first, second = (augmented(mesh, rng(1, 2, 3, "x"), Augment()) for _ in range(2))
    assert torch.equal(first.vertices, second.vertices)
    assert not torch.equal(first.vertices, augmented(mesh, rng(1, 2, 4, "x"), Augment()).vertices)


def test_rotations_are_rotations():
    generator = rng(0)
    seen = set()
    for _ in range(400):
        turn, cube = random_rotation(generator), random_cube_rotation(generator)
        for matrix in (turn, cube):
            assert torch.allclose(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
            assert float(torch.linalg.det(matrix)) == pytest.approx(1.0)
        seen.add(tuple(cube.flatten().tolist()))
    assert len(seen) == 24


def test_stretch_stays_in_range():
    config = Augment(stretched=1.0)
    generator = rng(0)
    for _ in range(200):
        values = torch.linalg.svdvals(random_linear(generator, config))
        assert float(values.min()) >= config.stretch[0] - 1e-9 and float(values.max()) <= config.stretch[1] + 1e-9


def test_nothing_drawn_means_a_similarity():
    mesh = sample()
    view = augmented(mesh, rng(0), Augment(0.0, 0.0, stretched=0.0, mirror=0.0, fill=(0.9, 0.9)))
    ratio = view.face_areas() / mesh.face_areas()
    clear = mesh.face_areas() > 1e-4
    assert torch.allclose(ratio[clear], torch.full_like(ratio[clear], (0.9 / 0.95) ** 2), rtol=1e-3)


def test_together_keeps_every_face_with_its_own_vertices():
    parts = [sample(1), sample(2, "gear"), sample(3, "tube")]
    whole = together(parts)
    corners = torch.cat([part.vertices[part.faces] for part in parts])
    assert torch.equal(whole.vertices[whole.faces], corners)


@pytest.mark.gpu
def test_cuda_view_is_the_cpu_view(device):
    mesh = sample()
    here, there = (augmented(mesh.to(where), rng(5), Augment()).vertices.cpu() for where in ("cpu", device))
    assert torch.allclose(here, there, atol=1e-5)
