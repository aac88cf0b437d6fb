"""The same shape seen anew: turned, stretched, mirrored, scaled and moved inside the cube, on any device.

Nothing here reads a number back from the device, so nothing waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.data.collection import checked_mesh
from shapecodec.mesh import Mesh


@dataclass(frozen=True)
class Augment:
    """How `augmented` draws.

    Args:
        free_rotation: probability of a rotation from all of SO(3).
        cube_rotation: probability of one of the cube's 24 rotations; what is left is no rotation.
        stretch: range of the factor of each axis, log-uniform.
        stretched: probability that the axes are stretched.
        mirror: probability that each axis is mirrored.
        fill: range of the longest side as a part of the cube's, uniform.
        margin: what stays free at the cube's faces, in unit-cube lengths; 4 voxels of 256^3 keep the active blocks
            inside.
    """

    free_rotation: float = 0.45
    cube_rotation: float = 0.35
    stretch: tuple[float, float] = (0.6, 1.4)
    stretched: float = 0.5
    mirror: float = 0.5
    fill: tuple[float, float] = (0.5, 0.95)
    margin: float = 4 / 256


def random_rotation(generator: torch.Generator) -> Tensor:
    """(3, 3) float64 rotation on the CPU, uniform over SO(3), from a random unit quaternion."""
    w, x, y, z = torch.nn.functional.normalize(torch.randn(4, generator=generator, dtype=torch.float64), dim=0).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def random_cube_rotation(generator: torch.Generator) -> Tensor:
    """(3, 3) float64, one of the 24 rotations that map the cube to itself."""
    order = torch.randperm(3, generator=generator)
    signs = torch.randint(0, 2, (3,), generator=generator).double() * 2 - 1
    matrix = torch.eye(3, dtype=torch.float64)[order] * signs[:, None]
    return matrix * torch.linalg.det(matrix)  # a reflection, negated, is a rotation


def random_linear(generator: torch.Generator, config: Augment) -> Tensor:
    """(3, 3) float64 linear map on the CPU: mirror and stretch along the shape's own axes, then rotate."""
    draw = torch.rand(8, generator=generator, dtype=torch.float64)
    low, high = (math.log(bound) for bound in config.stretch)
    factor = (
        torch.exp(low + (high - low) * draw[:3]) if draw[3] < config.stretched else torch.ones(3, dtype=torch.float64)
    )
    factor = torch.where(draw[4:7] < config.mirror, -factor, factor)
    if draw[7] < config.free_rotation:
        rotation = random_rotation(generator)
    elif draw[7] < config.free_rotation + config.cube_rotation:
        rotation = random_cube_rotation(generator)
    else:
        rotation = torch.eye(3, dtype=torch.float64)
    return rotation * factor


def augmented(mesh: Mesh, generator: torch.Generator, config: Augment, *, keep_outside: bool = False) -> Mesh:
    """A random view of a mesh whose every vertex is used: its box lies inside the cube, `margin` away from the faces.

    Args:
        mesh: any frame, any device.
        generator: on the CPU, so that one seed gives one view on every device.
        config: what is drawn.
        keep_outside: turn the faces of a mirrored shape, so that its outside stays outside; otherwise faces are untouched and it
            is wound the other way round, which unsigned distances do not see.
    """
    linear = random_linear(generator, config)
    draw = torch.rand(4, generator=generator)
    numbers = torch.cat([linear.float().flatten(), draw[:3]]).to(mesh.vertices.device, non_blocking=True)
    # Elementwise, not matmul: TF32, where it is switched on, would round coordinates to 10 bits.
    vertices = (mesh.vertices[:, None, :] * numbers[:9].view(3, 3)).sum(2)
    low, high = vertices.amin(0), vertices.amax(0)
    longest = config.fill[0] + (config.fill[1] - config.fill[0]) * float(draw[3])
    scale = min(longest, 1 - 2 * config.margin) / (high - low).amax()
    room = (1 - 2 * config.margin - (high - low) * scale).clamp_min(0)
    vertices = (vertices - (low + high) / 2) * scale + (numbers[9:] - 0.5) * room
    inverted = keep_outside and float(torch.linalg.det(linear)) < 0
    return checked_mesh(vertices, mesh.faces.flip(1) if inverted else mesh.faces, mesh.name)


def together(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes of one frame and device as one."""
    counts = [0]
    for mesh in meshes[:-1]:
        counts.append(counts[-1] + len(mesh.vertices))
    faces = torch.cat([mesh.faces + start for mesh, start in zip(meshes, counts, strict=True)])
    return checked_mesh(torch.cat([mesh.vertices for mesh in meshes]), faces, "+".join(mesh.name for mesh in meshes))
