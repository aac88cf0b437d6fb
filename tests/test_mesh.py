"""A Mesh is valid or does not exist; the way into the unit cube and back loses nothing that matters."""

import numpy as np
import pytest
import torch

from shapecodec.errors import BadArgument, BadMesh
from shapecodec.mesh import Mesh, Similarity

POINTS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def changed(row: int, value: float) -> torch.Tensor:
    points = POINTS.clone()
    points[row, 1] = value
    return points


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (POINTS[:, :2], FACES, "expected vertices"),
        (POINTS, FACES[:, :2], "expected vertices"),
        (POINTS, FACES[:0], "no faces"),
        (POINTS[:0], FACES[:0], "no faces"),
        (POINTS[:0], FACES, "point outside"),
        (POINTS[:3], FACES, r"3 of 4 faces point outside the vertices \(index 3 of 3\)"),
        (POINTS, FACES - 1, r"index -1"),
        (changed(2, float("nan")), FACES, "1 of 4 vertices are NaN"),
        (changed(2, float("inf")), FACES, "NaN or infinite"),
        (POINTS * 0 + 5, FACES, "zero extent"),
        (POINTS, torch.tensor([[0, 0, 1], [1, 2, 2]]), "all 2 faces are degenerate"),
        (POINTS * torch.tensor([1.0, 0, 0]), FACES, "degenerate"),
        (POINTS * 1e30, FACES, "areas do not fit float32"),
        (POINTS * 1e-30, FACES, "areas do not fit float32"),
    ],
)
def test_bad_arrays(vertices, faces, message):
    with pytest.raises(BadMesh, match=message):
        Mesh(vertices, faces, "chair.obj")


def test_one_good_face_is_enough():
    faces = torch.cat([torch.zeros((1 << 20) + 5, 3, dtype=torch.int64), FACES[:1]])
    assert len(Mesh(POINTS, faces).faces) == len(faces)


@pytest.mark.parametrize("scale", [1e-14, 1e-6, 1.0, 1e6, 1e14])
def test_any_usual_unit_is_fine(scale):
    mesh = Mesh(POINTS * scale, FACES)
    unit, frame = mesh.normalise()
    assert float(unit.vertices.abs().max()) == pytest.approx(0.475)
    torch.testing.assert_close(
        unit.transformed(frame, inverse=True).vertices, mesh.vertices, rtol=1e-6, atol=1e-7 * scale
    )
    points, face = mesh.sample(100, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(points).all())
    assert set(face.tolist()) == {0, 1, 2, 3}


def test_unused_vertices_do_not_move_the_cube():
    """Also where there are more faces than vertices."""
    stray = torch.cat([POINTS, torch.tensor([[100.0, 0, 0]])])
    for faces in (FACES, FACES.repeat(2, 1)):
        low, high = Mesh(stray, faces).bounds()
        assert low.tolist() == [0, 0, 0]
        assert high.tolist() == [1, 1, 1]
        assert Mesh(stray, faces).normalise()[1] == Mesh(POINTS, FACES).normalise()[1]


def test_far_from_the_origin():
    mesh = Mesh(POINTS + torch.tensor([1000.0, -2000.0, 0]), FACES)
    unit, frame = mesh.normalise(margin=0.1)
    assert float(unit.vertices.abs().max()) == pytest.approx(0.4)
    torch.testing.assert_close(unit.transformed(frame, inverse=True).vertices, mesh.vertices, rtol=0, atol=1e-7)
    for margin in (-0.1, 0.5):
        with pytest.raises(BadArgument, match="margin"):
            mesh.normalise(margin)


def test_similarity_runs_in_double_precision():
    frame = Similarity((1e8, 0.0, 0.0), 1e-3)
    points = torch.tensor([[0.25, 0.5, -0.5]])
    assert torch.equal(frame.invert(points), torch.tensor([[1e8 + 250, 500, -500]]))


def test_areas_normals_and_samples():
    mesh = Mesh(POINTS, FACES)
    expected = torch.tensor([0.5, 0.5, 3**0.5 / 2, 0.5])
    torch.testing.assert_close(mesh.face_areas(), expected)
    torch.testing.assert_close(mesh.face_normals()[2], torch.full((3,), 3**-0.5))
    assert float((mesh.face_normals() * mesh.vertices[mesh.faces].mean(1)).sum(1).min()) >= 0  # outward
    points, face = mesh.sample(20_000, torch.Generator().manual_seed(0))
    share = torch.bincount(face, minlength=4) / len(face)
    torch.testing.assert_close(share, expected / expected.sum(), atol=0.02, rtol=0)
    distance = ((points - mesh.vertices[mesh.faces[face, 0]]) * mesh.face_normals()[face]).sum(1)
    assert float(distance.abs().max()) < 1e-6
    assert float(points.min()) >= 0


def test_degenerate_faces_have_no_normal_and_no_samples():
    mesh = Mesh(POINTS, torch.tensor([[0, 1, 1], [0, 1, 2], [3, 3, 3]]))
    assert mesh.face_normals()[[0, 2]].abs().sum() == 0
    assert set(mesh.sample(1000, torch.Generator().manual_seed(0))[1].tolist()) == {1}


def test_watertight():
    assert Mesh(POINTS, FACES).is_watertight()
    assert not Mesh(POINTS, FACES[:3]).is_watertight()
    assert not Mesh(POINTS, torch.cat([FACES, FACES[:1]])).is_watertight()
    assert sorted(Mesh(POINTS, FACES[:3]).edge_counts().tolist()) == [1, 1, 1, 2, 2, 2]


def test_numpy_types_are_converted():
    mesh = Mesh.from_arrays(POINTS.double().numpy()[::1], FACES.numpy().astype(np.uint16))
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (torch.float32, torch.int64)
    vertices, faces = mesh.numpy()
    np.testing.assert_array_equal(vertices, POINTS)
    np.testing.assert_array_equal(faces, FACES)
    assert mesh.to("cpu").name == mesh.name
