import numpy as np
import torch

from shapecodec.camera import Camera
from shapecodec.mesh import Mesh
from shapecodec.render import SheetStyle, contact_sheet, render
from shapecodec.render.colours import STOPS, error_colours
from shapecodec.render.shade import PAPER

STYLE = SheetStyle(cell=(60, 50))


def sphere(radius: float) -> Mesh:
    """An octahedron, divided four times and pushed out."""
    vertices = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    corners = vertices[faces]
    for _ in range(4):
        a, b, c = corners.unbind(1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = torch.cat([torch.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    points = torch.nn.functional.normalize(corners.reshape(-1, 3), dim=1) * radius
    return Mesh(points, torch.arange(len(points)).reshape(-1, 3))


def colourfulness(image: np.ndarray) -> float:
    return float((image.max(-1).astype(int) - image.min(-1)).max())


def test_error_colours_of_known_errors():
    colours = error_colours(torch.tensor([0.0, 0.5, 1.0, 7.0]), 1.0)
    np.testing.assert_array_equal(colours.numpy(), STOPS[[0, 3, 6, 6]].astype(np.uint8))


def test_perfect_copy_looks_wrong_or_shrunken_copy_looks_perfect():
    original = sphere(0.4)
    rows = {}
    for name, other in (("copy", original), ("shrunken", sphere(0.39))):
        sheet = np.asarray(contact_sheet(original, other, resolution=100, title="t", style=STYLE))
        rows[name] = sheet[-92 - 50 : -92]  # the cells of the last row
    assert colourfulness(rows["copy"]) < 30
    assert colourfulness(rows["shrunken"]) > 50


def test_inside_out_mesh_is_dark():
    camera = Camera.perspective((0, 0, 2), (0, 0, 0), 40.0, (64, 64))
    mesh = sphere(0.4)
    turned = Mesh(mesh.vertices, mesh.faces.flip(1))
    outside, inside = (np.asarray(render(m, camera)).astype(int) for m in (mesh, turned))
    assert np.abs(outside - inside).max() <= 2
    assert tuple(outside[0, 0]) == PAPER and outside[32, 32].min() > 90


def test_vertex_colours_are_lost():
    mesh = sphere(0.4)
    red = torch.zeros(len(mesh.vertices), 3, dtype=torch.uint8)
    red[:, 0] = 255
    camera = Camera.perspective((0, 0, 2), (0, 0, 0), 40.0, (32, 32))
    pixel = np.asarray(render(mesh, camera, colours=red))[16, 16].astype(int)
    assert pixel[0] > 120 and pixel[1] < 90 and pixel[2] < 90
