import numpy as np
import pytest
import torch
from solids import cube, moved, sphere, together

from shapecodec.errors import BadArgument
from shapecodec.evaluate.views import Views, sphere_directions
from shapecodec.evaluate.visible import OUTER, OuterSurface, visible_points
from shapecodec.mesh import Mesh

VIEWS = Views(60, 200)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shell(gap: float, steps: int = 24) -> tuple[Mesh, int]:
    """Two spheres `gap` apart, the inner one first and wound inwards, and the number of its faces."""
    inner = sphere(0.4 - gap / 2, steps)
    return together(Mesh(inner.vertices, inner.faces.flip(1)), sphere(0.4 + gap / 2, steps)), len(inner.faces)


def soup(faces: int) -> Mesh:
    corners = torch.rand(faces, 1, 3, generator=generator()) - 0.5
    return Mesh(
        (corners + 0.5 * torch.rand(faces, 3, 3, generator=generator(1))).reshape(-1, 3),
        torch.arange(3 * faces).reshape(-1, 3),
    )


def seen_by_rays(mesh: Mesh, points: torch.Tensor, faces: torch.Tensor, directions: torch.Tensor) -> np.ndarray:
    """Whether a ray from the point in any direction meets no other face (Moeller and Trumbore 1997), float64."""
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    seen = torch.zeros(len(points), dtype=torch.bool)
    for direction in directions:
        cross = torch.linalg.cross(direction.expand_as(a), c - a)
        determinant = (cross * (b - a)).sum(1)
        offset = points.double()[:, None] - a
        u = (offset * cross).sum(-1) / determinant
        other = torch.linalg.cross(offset, (b - a).expand_as(offset))
        v = other @ direction / determinant
        t = (other * (c - a)).sum(-1) / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (torch.arange(len(a)) != faces[:, None])
        seen |= ~hit.any(1)
    return seen.numpy()


@pytest.mark.parametrize("gap", [0.002, 0.02])
def test_inner_shell_is_counted(gap):
    """0.002 is a UDF's shell at 1024^3, smaller than a pixel of the pictures."""
    mesh, inner = shell(gap)
    points, faces = mesh.sample(4000, generator())
    seen = visible_points(mesh, points, faces, VIEWS)
    assert not seen[faces < inner].any() and seen[faces >= inner].all()
    surface = OuterSurface(mesh, VIEWS)
    assert surface.seen_faces()[inner:].all() and not surface.seen_faces()[:inner].any()
    assert (surface.sample(3000, generator())[1] >= inner).all()


def test_default_views_let_a_thin_shell_through():
    mesh, inner = shell(0.001, steps=12)
    points, faces = mesh.sample(2000, generator())
    seen = OuterSurface(mesh).sees(points, faces)
    assert (OUTER.count, OUTER.resolution, OUTER.margin) == (100, 512, 1.05)
    assert not seen[faces < inner].any() and seen[faces >= inner].all()


def test_something_inside_is_seen_through_the_wall():
    mesh = together(cube(2), moved(sphere(steps=4), scale=0.5))
    walls = len(cube(2).faces)
    points, faces = mesh.sample(3000, generator())
    np.testing.assert_array_equal(visible_points(mesh, points, faces, VIEWS), faces < walls)


def test_an_open_box_hides_its_inside():
    box = cube(4)
    middles = box.vertices[box.faces].mean(1)
    open_box = Mesh(box.vertices, box.faces[middles[:, 1] < 0.39])
    mesh = together(open_box, moved(sphere(steps=4), scale=0.25))
    points, faces = mesh.sample(3000, generator())
    seen = visible_points(mesh, points, faces, VIEWS)
    ball = (faces >= len(open_box.faces)) & (points[:, 1] > 0.02)
    assert ball.sum() > 50 and seen[ball].all()


@pytest.mark.parametrize("faces", [1, 12, 60])
def test_other_points_are_seen_than_by_rays(faces):
    mesh = soup(faces)
    points, own = mesh.sample(1500, generator(2))
    seen = visible_points(mesh, points, own, VIEWS).numpy()
    expected = seen_by_rays(mesh, points, own, sphere_directions(VIEWS.count))
    assert expected.mean() > 0.3
    # outlines are drawn with pixels, so points within about one of the border of what is seen may differ
    assert (seen != expected).mean() < 0.04
    assert abs(seen.mean() - expected.mean()) < 0.02


def test_samples_are_not_uniform_on_what_is_seen():
    mesh, inner = shell(0.01)
    points, faces = OuterSurface(mesh, VIEWS).sample(20_000, generator())
    assert points.shape == (20_000, 3) and (faces >= inner).all()
    octants = ((points > 0).long() * torch.tensor([1, 2, 4])).sum(1).bincount(minlength=8)
    assert (octants.float() / 20_000 - 1 / 8).abs().max() < 0.012
    np.testing.assert_allclose(points.norm(dim=1), 0.405, atol=2e-3)


def test_samples_depend_on_threads_or_chance():
    mesh, threads, found = shell(0.01)[0], torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(OuterSurface(mesh, VIEWS).sample(30_000, generator(5)))
    torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_place_and_size_change_what_is_seen():
    mesh = soup(40)
    points, faces = mesh.sample(1500, generator(2))
    seen = visible_points(mesh, points, faces, VIEWS)
    far = moved(mesh, 40.0, -30.0, 8.0, scale=16.0)
    again = visible_points(far, points * 16 + torch.tensor([40.0, -30.0, 8.0]), faces, VIEWS)
    assert (seen != again).float().mean() < 0.005


def test_arguments_that_do_not_fit():
    surface = OuterSurface(cube(1), Views(2, 16))
    assert surface.sees(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    for points, faces in ((torch.zeros(2, 3), torch.zeros(3).long()), (torch.zeros(1, 3), torch.tensor([12]))):
        with pytest.raises(BadArgument):
            surface.sees(points, faces)
    with pytest.raises(BadArgument):
        surface.sample(0, generator())
