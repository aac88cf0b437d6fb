"""Shapes with known answers."""

import torch
from torch.nn.functional import normalize

from shapecodec.mesh import Mesh


def cube(steps: int = 24, rounding: float = 0.0, half: float = 0.4) -> Mesh:
    """The cube [-half, half]^3 of steps^2 squares a side, welded, with edges of the given radius."""
    line = torch.linspace(-half, half, steps + 1)
    u, v = torch.meshgrid(line, line, indexing="ij")
    i, j = torch.meshgrid(torch.arange(steps), torch.arange(steps), indexing="ij")
    a = i * (steps + 1) + j
    b, c, d = a + steps + 1, a + steps + 2, a + 1
    quads = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    vertices, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            faces.append((quads if sign > 0 else quads.flip(1)) + len(vertices) * (steps + 1) ** 2)
            vertices.append(torch.stack([torch.full_like(u, half * sign), u, v], -1).reshape(-1, 3).roll(axis, 1))
    points, row = torch.unique(torch.cat(vertices), dim=0, return_inverse=True)
    core = points.clamp(rounding - half, half - rounding)
    return Mesh(core + rounding * normalize(points - core, dim=1) if rounding else points, row[torch.cat(faces)])


def sphere(radius: float = 0.4, steps: int = 24) -> Mesh:
    """A sphere of 12 steps^2 faces."""
    mesh = cube(steps)
    return Mesh(radius * normalize(mesh.vertices, dim=1), mesh.faces)


def together(*meshes: Mesh) -> Mesh:
    """One mesh of several, in their order."""
    starts = [0]
    for mesh in meshes:
        starts.append(starts[-1] + len(mesh.vertices))
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), torch.cat(faces))


def moved(mesh: Mesh, *shift: float, scale: float = 1.0) -> Mesh:
    """The mesh scaled, then shifted."""
    return Mesh(mesh.vertices * scale + torch.tensor(shift or (0.0, 0.0, 0.0)), mesh.faces)
