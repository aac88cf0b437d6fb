"""Small closed and open meshes for the tests of Focusing's supervision."""

import math

import torch

from shapecodec.mesh import Mesh

CUBE = torch.tensor(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)  # vertices 4 x + 2 y + z, counter-clockwise outward


def box(half: float = 0.3, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    bit = torch.tensor([-1.0, 1.0])
    return Mesh(torch.cartesian_prod(bit, bit, bit) * half + torch.tensor(centre), CUBE)


def star(points: int = 7, thickness: float = 0.15) -> Mesh:
    """A flat star with sharp spikes and sharp valleys, its two centres joined to the outline: closed, every edge of two faces."""
    angle = torch.arange(2 * points) * (math.pi / points)
    radius = torch.where(torch.arange(2 * points) % 2 == 0, 0.45, 0.12)
    outline = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.zeros(2 * points)], 1)
    tips = torch.tensor([[0.0, 0.0, thickness], [0.0, 0.0, -thickness]])
    here = torch.arange(2 * points)
    there = (here + 1) % (2 * points)
    top = torch.stack([here, there, torch.full_like(here, 2 * points)], 1)
    bottom = torch.stack([there, here, torch.full_like(here, 2 * points + 1)], 1)
    return Mesh(torch.cat([outline, tips]), torch.cat([top, bottom]))


def sheet(steps: int = 6, bend: float = 0.1) -> Mesh:
    """A bent open sheet over [-0.4, 0.4]^2, its faces counter-clockwise seen from +z."""
    axis = torch.linspace(-0.4, 0.4, steps + 1)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    vertices = torch.stack([x, y, bend * (5 * x).sin()], -1).reshape(-1, 3)
    number = torch.arange((steps + 1) ** 2).view(steps + 1, steps + 1)
    a, b, c, d = (part.flatten() for part in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    return Mesh(vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))


def apart(mesh: Mesh) -> Mesh:
    """The same triangles without a common vertex."""
    return Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(3 * len(mesh.faces)).view(-1, 3))


def inverted(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces[:, [0, 2, 1]])


def together(*meshes: Mesh) -> Mesh:
    starts = torch.tensor([0] + [len(mesh.vertices) for mesh in meshes]).cumsum(0)
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), torch.cat(faces))
