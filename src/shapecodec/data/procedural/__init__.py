"""Procedural meshes: seeded, unlimited, and made to hold what real ones are short of.

Every kind is a function of a numpy generator in `solids`, `sheets` or `frames`; together they show the network planes,
smooth curvature, creases, corners, thin double walls, crossings, T-junctions, open rims and fine bumps, at scales drawn
log-uniformly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from shapecodec.data.procedural import frames, sheets, solids
from shapecodec.data.procedural.parts import Random, Shape, log_uniform, merge, moved, rotations, tidy, unit_box
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh

MAX_FACES = 60_000

_MAKERS: dict[str, tuple[float, Callable[[Random], Shape]]] = {  # weight, maker
    "primitives": (1.0, solids.primitives),
    "clutter": (2.0, solids.clutter),
    "extrusion": (1.0, solids.extrusion),
    "revolution": (1.0, solids.revolution),
    "gear": (1.0, solids.gear),
    "bolt": (1.0, solids.bolt),
    "chamfered": (0.8, solids.chamfered),
    "facets": (0.8, solids.facets),
    "studded": (1.2, solids.studded),
    "open_sheet": (1.2, sheets.open_sheet),
    "thin_wall": (1.2, sheets.thin_wall),
    "nested": (1.2, sheets.nested),
    "displaced": (1.5, sheets.displaced),
    "crossings": (0.8, sheets.crossings),
    "foliage": (1.0, sheets.foliage),
    "scales": (0.6, sheets.scales),
    "wire_frame": (1.0, frames.wire_frame),
    "lattice": (0.8, frames.lattice),
    "perforated": (0.8, frames.perforated),
    "tube": (1.2, frames.tube),
    "chain": (0.5, frames.chain),
    "buildings": (1.2, frames.buildings),
    "letters": (0.8, frames.letters),
    "furniture": (1.0, frames.furniture),
    "wheel": (0.7, frames.wheel),
}
KINDS: tuple[str, ...] = tuple(_MAKERS)


def procedural_arrays(generator: Random, kind: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float32 in [-0.475, 0.475]^3 and faces (F, 3) int32, 1 <= F <= 60,000; every vertex is used.

    Without a `kind`, two shapes of three are of one kind, the others assembled from several; a fifth are bent, twisted,
    tapered or sheared.

    Raises:
        BadArgument: an unknown kind.
    """
    if kind is not None and kind not in _MAKERS:
        raise BadArgument(f"unknown kind '{kind}'.", where="procedural_mesh", hint=f"one of {', '.join(KINDS)}.")
    while True:
        shape = _MAKERS[kind][1](generator) if kind else _any(generator)
        if len(shape[1]) <= MAX_FACES:
            vertices, faces = unit_box(tidy(unit_box(shape)), 0.95)
            if len(faces):
                return vertices.astype(np.float32), faces.astype(np.int32)


def procedural_mesh(generator: np.random.Generator | torch.Generator, kind: str | None = None) -> Mesh:
    """A procedural mesh in the unit cube, a function of the generator; `kind` is one of `KINDS` or None for any.

    Raises:
        BadArgument: an unknown kind.
    """
    if isinstance(generator, torch.Generator):
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        generator = np.random.default_rng(seed)
    vertices, faces = procedural_arrays(generator, kind)
    return Mesh.from_arrays(vertices, faces, name=f"procedural/{kind or 'any'}")


def _any(generator: Random) -> Shape:
    draw = generator.random()
    if draw < 0.65:
        shape = _draw(generator, 1, MAX_FACES)[0]
    elif draw < 0.8:
        shape = _assembled(generator, int(generator.integers(2, 5)), (0.25, 1.0), MAX_FACES)
    else:  # many small parts of every kind: the dense detail of machines, ships and cities
        shape = _assembled(generator, int(generator.integers(8, 28)), (0.06, 0.5), 5_000)
    return _bent(shape, generator) if generator.random() < 0.2 else shape


def _draw(generator: Random, count: int, most_faces: int) -> list[Shape]:
    """`count` shapes of any kind, less those with too many faces."""
    weights = np.array([weight for weight, _ in _MAKERS.values()])
    drawn = generator.choice(len(KINDS), count, p=weights / weights.sum())
    shapes = [_MAKERS[KINDS[index]][1](generator) for index in drawn]
    return [unit_box(shape) for shape in shapes if len(shape[1]) <= most_faces] or _draw(generator, count, most_faces)


def _assembled(generator: Random, count: int, sizes: tuple[float, float], most_faces: int) -> Shape:
    """Shapes of any kind in one place, `sizes` their range of scales, half of them turned freely."""
    parts: list[Shape] = []
    spread = generator.uniform(0.1, 0.4)
    for part in _draw(generator, count, most_faces):
        turn = rotations(generator, 1)[0] if generator.random() < 0.5 else np.eye(3)
        scale = log_uniform(generator, *sizes) if parts else generator.uniform(0.5, 1)  # one large part holds them
        parts.append(moved(part, turn * scale, generator.uniform(-spread, spread, 3) * bool(parts)))
    return merge(parts)


def _bent(shape: Shape, generator: Random) -> Shape:
    """Twisted, tapered, bent round an axis or sheared: long triangles stay flat, fine ones follow."""
    x, y, z = unit_box(shape)[0].T
    choice = generator.integers(4)
    if choice == 0:
        angle = y * generator.uniform(-4, 4)
        x, z = x * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - x * np.sin(angle)
    elif choice == 1:
        factor = 1 + y * generator.uniform(-1.8, 1.8)
        x, z = x * factor, z * factor
    elif choice == 2:
        radius = generator.uniform(0.3, 1.5)
        x, y = (radius + x) * np.cos(y / radius), (radius + x) * np.sin(y / radius)
    else:
        x, z = x + y * generator.uniform(-0.8, 0.8), z + y * generator.uniform(-0.8, 0.8)
    return np.stack([x, y, z], 1), shape[1]
