import numpy as np
import pytest
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.mesh import Mesh
from shapecodec.render.raster import nearest_faces, rasterise, seen_vertices

CAMERAS = {
    "perspective": Camera.perspective(orbit(20, 30, 2.5), (0, 0, 0), 30.0, (37, 29)),
    "orthographic": Camera.orthographic(orbit(20, 30, 2.5), (0, 0, 0), 0.6, (37, 29)),
}


def soup(faces: int) -> Mesh:
    generator = torch.Generator().manual_seed(faces)
    corners = torch.rand(faces, 1, 3, generator=generator) - 0.5 + 0.3 * torch.rand(faces, 3, 3, generator=generator)
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3))


def nearest_by_rays(mesh: Mesh, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's ray against every triangle, in float64 (Moeller and Trumbore 1997)."""
    inverse = torch.linalg.inv(camera.projection @ camera.view)
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    ndc = torch.stack([x / camera.width * 2 - 1, 1 - y / camera.height * 2], -1).reshape(-1, 2).double()
    ends = []
    for depth in (-1.0, 0.9):
        clip = torch.cat([ndc, torch.full((len(ndc), 1), depth), torch.ones(len(ndc), 1)], 1).double() @ inverse.T
        ends.append(clip[:, :3] / clip[:, 3:])
    start, direction = ends[0][:, None], (ends[1] - ends[0])[:, None]
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    cross = torch.linalg.cross(direction.expand(-1, len(a), -1), (c - a)[None].expand(len(ndc), -1, -1))
    determinant = (cross * (b - a)).sum(-1)
    offset = start - a
    u = (offset * cross).sum(-1) / determinant
    other = torch.linalg.cross(offset, (b - a)[None].expand_as(offset))
    v = (direction * other).sum(-1) / determinant
    t = ((c - a) * other).sum(-1) / determinant
    inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    t = torch.where(inside, t, torch.inf)
    face = torch.where(inside.any(1), t.argmin(1), -1).reshape(camera.height, camera.width)
    ordered = t.sort(1).values
    gap = (ordered[:, 1] - ordered[:, 0]).nan_to_num(1.0, 1.0).reshape(camera.height, camera.width)
    return face.numpy(), gap.numpy()


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
@pytest.mark.parametrize("faces", [2, 300])
def test_another_face_than_the_ray_meets(camera, faces):
    mesh = soup(faces)
    expected, gap = nearest_by_rays(mesh, camera)
    found = rasterise(mesh, camera).face
    assert (found >= 0).any()
    # Rays that graze an edge may fall either way in float32.
    assert ((found != expected) & (gap > 1e-6)).mean() < 0.003


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
def test_weights_point_beside_the_pixel(camera):
    mesh = soup(300)
    seen = rasterise(mesh, camera)
    i, j = np.nonzero(seen.face >= 0)
    corners = mesh.vertices.numpy()[mesh.faces.numpy()[seen.face[i, j]]]
    points = torch.from_numpy((seen.weights[i, j][:, :, None] * corners).sum(1))
    pixels = camera.project(points)[0].numpy()
    np.testing.assert_allclose(pixels, np.stack([j + 0.5, i + 0.5], 1), atol=2e-2)
    np.testing.assert_allclose(seen.weights[i, j].sum(1), 1, atol=1e-5)


def test_face_behind_the_camera_is_drawn():
    camera = Camera.perspective((0, 0, 1), (0, 0, 0), 60.0, (16, 16))
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2], [-1, -1, 0.5], [1, -1, 3], [0, 1, 0.5]])
    assert (rasterise(Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]])), camera).face == -1).all()


def test_result_depends_on_threads():
    mesh, camera = soup(2000), CAMERAS["perspective"].enlarged(4)
    threads = torch.get_num_threads()
    pictures = []
    for count in (1, 5):
        torch.set_num_threads(count)
        pictures.append(rasterise(mesh, camera))
    torch.set_num_threads(threads)
    for first, second in zip(*pictures, strict=True):
        np.testing.assert_array_equal(first, second)


def test_hidden_vertices_count_as_seen():
    vertices = torch.tensor(
        [[-1.0, -1, 0], [1, -1, 0], [0, 1, 0], [-0.1, -0.1, -0.5], [0.1, -0.1, -0.5], [0, 0.1, -0.5]]
    )
    mesh = Mesh(vertices, torch.tensor([[3, 4, 5], [0, 1, 2]]))
    camera = Camera.orthographic((0, 0, 2), (0, 0, 0), 1.0, (20, 20))
    assert seen_vertices(mesh, [rasterise(mesh, camera)]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("bands", [1, 3, 16])
def test_faces_without_weights_are_others(bands):
    mesh, camera = soup(300), CAMERAS["perspective"]
    seen = rasterise(mesh, camera)
    face, depth = nearest_faces(mesh, camera, bands=bands)
    np.testing.assert_array_equal(face, seen.face)
    np.testing.assert_array_equal(depth, seen.depth)
