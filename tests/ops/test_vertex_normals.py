"""Vertex normals: the reference against a loop, the fast path against the reference."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.vertex_normals import vertex_normals


def soup(count: int, vertices: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    return torch.rand(vertices, 3, generator=draw), torch.randint(0, vertices, (count, 3), generator=draw)


def test_reference_against_a_loop():
    vertices, faces = soup(40, 15)
    total = torch.zeros(15, 3, dtype=torch.float64)
    for face in faces:
        a, b, c = vertices[face].double()
        for corner in face:
            total[corner] += torch.linalg.cross(b - a, c - a)
    expected = torch.nn.functional.normalize(total, dim=1).float()
    torch.testing.assert_close(vertex_normals(vertices, faces, backend="reference"), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "vertices"), [(0, 3), (1, 3), (999, 333)])
def test_cpu_against_reference(count, vertices):
    mesh = soup(count, vertices)
    got, want = vertex_normals(*mesh, backend="cpu"), vertex_normals(*mesh, backend="reference")
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_degenerate_faces_and_unused_vertices_have_no_normal(backend):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]])
    assert not vertex_normals(vertices, torch.tensor([[0, 1, 2]]), backend=backend).any()
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 3]]), backend=backend)
    assert torch.equal(normals[2], torch.zeros(3))
    assert torch.equal(normals[0], torch.tensor([0.0, 0, 1]))


def test_shapes_that_are_no_mesh():
    with pytest.raises(BadArgument):
        vertex_normals(torch.zeros(3, 2), torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.gpu
def test_order_of_atomics_does_not_show():
    vertices, faces = (part.cuda() for part in soup(2_000_000, 1_000_000))
    first = vertex_normals(vertices, faces)
    assert all(torch.equal(first, vertex_normals(vertices, faces)) for _ in range(3))
    torch.testing.assert_close(
        first.cpu(), vertex_normals(vertices.cpu(), faces.cpu(), backend="cpu"), atol=2e-3, rtol=0
    )
