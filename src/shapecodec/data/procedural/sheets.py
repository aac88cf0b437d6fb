"""Surfaces without a volume, or hardly one: open sheets, thin walls, shells within shells, fine bumps."""

from __future__ import annotations

import numpy as np

from shapecodec.data.procedural.parts import (
    Array,
    Random,
    Shape,
    box,
    circle,
    frames_along,
    grid_faces,
    instances,
    log_integer,
    log_uniform,
    merge,
    moved,
    revolve,
    rotation_y,
    rotations,
    sphere,
    sweep,
    torus,
    vertex_normals,
    waves,
    welded,
)
from shapecodec.data.procedural.solids import cut, primitive


def thickened(shape: Shape, thickness: float) -> Shape:
    """An open sheet made solid: two copies `thickness` apart along the normals, joined at the rim."""
    vertices, faces = shape
    offset = vertex_normals(shape) * (thickness / 2)
    count = len(vertices)
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = np.sort(ends, 1) @ [count, 1]
    _, first, uses = np.unique(key, return_index=True, return_counts=True)
    rim = ends[first[uses == 1]]
    wall = np.concatenate(
        [
            np.stack([rim[:, 1], rim[:, 0], rim[:, 0] + count], 1),
            np.stack([rim[:, 1], rim[:, 0] + count, rim[:, 1] + count], 1),
        ]
    )
    return np.concatenate([vertices + offset, vertices - offset]), np.concatenate([faces, faces[:, ::-1] + count, wall])


def open_sheet(rng: Random) -> Shape:
    """A height field, cloth, ribbon, half dome, open cone, Moebius band or saddle, of no thickness."""
    rows, columns = log_integer(rng, 4, 150), log_integer(rng, 4, 150)
    u, v = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    shape: Shape = np.stack([u, 0 * u, v], 2).reshape(-1, 3), grid_faces(rows, columns)
    flat, faces = shape
    choice = rng.integers(7)
    if choice == 0:  # height field, rough or smooth
        lift = waves(
            flat,
            rng,
            frequency=log_uniform(rng, 0.8, 8),
            octaves=int(rng.integers(1, 5)),
            roughness=rng.uniform(0.2, 0.7),
        )
        flat[:, 1] = lift * log_uniform(rng, 0.01, 0.4)
    elif choice == 1:  # cloth: folds along one direction, and every coordinate stirred
        flat[:, 1] = np.sin(flat[:, 0] * rng.uniform(3, 25) + waves(flat, rng, frequency=1)) * log_uniform(
            rng, 0.01, 0.3
        )
        flat += np.stack([waves(flat, rng, frequency=rng.uniform(0.5, 2)) for _ in range(3)], 1) * rng.uniform(0, 0.2)
    elif choice == 2:  # ribbon
        turn = u.ravel() * rng.uniform(1, 12)
        width = v.ravel() * log_uniform(rng, 0.02, 0.5)
        flat = np.stack([np.cos(turn), u.ravel() * rng.uniform(0, 2) + width, np.sin(turn)], 1)
    elif choice == 3:  # part of a sphere
        latitude = np.linspace(rng.uniform(-1.5, 0.5), rng.uniform(0.6, np.pi / 2), rows)
        profile = np.stack([np.cos(latitude), np.sin(latitude)], 1)
        flat, faces = revolve(profile, max(columns, 5), turn=rng.choice([2 * np.pi, rng.uniform(1, 6)]))
    elif choice == 4:  # open cone or pipe
        flat, faces = revolve(np.array([[rng.uniform(0, 1), -1], [1, 1]]), max(columns, 5))
    elif choice == 5:  # Moebius band with any number of half turns
        angle, twist = (u + 1) * np.pi, (u + 1) * np.pi / 2 * rng.integers(0, 5)
        width = v * log_uniform(rng, 0.05, 0.5)
        radius = 1 + width * np.cos(twist)
        flat = np.stack([radius * np.cos(angle), width * np.sin(twist), radius * np.sin(angle)], 2).reshape(-1, 3)
    else:  # saddle
        flat[:, 1] = (flat[:, 0] ** 2 - flat[:, 2] ** 2) * rng.uniform(0.1, 0.6)
    if rng.random() < 0.3 and len(faces) > 100:  # torn: holes and a ragged rim
        centre = flat[faces].mean(1)
        keep = waves(centre, rng, frequency=rng.uniform(1, 6)) > -rng.uniform(0.5, 1.5)
        faces = faces[keep] if keep.sum() > 4 else faces
    return flat, faces


def thin_wall(rng: Random) -> Shape:
    """Plates, shells and bent sheets with a thickness between a hair and a few per cent."""
    thickness = log_uniform(rng, 0.001, 0.06)
    if rng.random() < 0.3:
        parts = []
        for matrix in rotations(rng, int(rng.integers(1, 8))):
            size = (thickness, rng.uniform(0.2, 1.5), rng.uniform(0.2, 1.5))
            parts.append(moved(box(size), matrix if rng.random() < 0.5 else np.eye(3), rng.uniform(-0.5, 0.5, 3)))
        return merge(parts)
    return thickened(welded(open_sheet(rng)), thickness)


def nested(rng: Random) -> Shape:
    """Shells within shells, gaps from a hair to a fifth, sometimes cut open so that every layer shows its rim."""
    base = primitive(rng)
    while len(base[1]) > 9000:
        base = primitive(rng)
    scales = np.cumprod([1.0] + [1 - log_uniform(rng, 0.002, 0.3) for _ in range(int(rng.integers(1, 6)))])
    shape = merge([moved(base, scale) for scale in scales])
    for _ in range(int(rng.integers(0, 3))):  # some stay closed: hidden layers
        direction = rotations(rng, 1)[0][0]
        shape = cut(shape, direction, rng.uniform(-0.1, 0.6) * float((shape[0] @ direction).max()))
    return shape


def displaced(rng: Random) -> Shape:
    """A sphere, torus, box or cylinder covered with noise, grooves, cells or bumps down to a few voxels."""
    fine = log_integer(rng, 24, 160)
    choice = rng.integers(4)
    if choice == 0:
        base = sphere(fine // 2 + 2, fine)
    elif choice == 1:
        base = torus(fine, max(8, fine // 2), rng.uniform(0.15, 0.6))
    elif choice == 2:
        base = revolve(
            np.concatenate([[[0, -1]], np.stack([np.ones(fine), np.linspace(-1, 1, fine)], 1), [[0, 1]]]), fine
        )
    else:
        base = cube_sphere(fine // 3)
    base = welded(base)
    frequency, height = log_uniform(rng, 1.5, 25), log_uniform(rng, 0.004, 0.12)
    pattern = waves(base[0], rng, frequency=frequency, octaves=int(rng.integers(1, 4)), roughness=rng.uniform(0.3, 0.7))
    kind = rng.integers(4)
    if kind == 1:
        pattern = np.abs(pattern)
    elif kind == 2:
        pattern = np.sign(pattern)
    elif kind == 3:
        pattern = np.sin(base[0] @ rng.normal(size=3) * frequency * 2)
    vertices = base[0] + vertex_normals(base) * (pattern * height)[:, None]
    return moved((vertices, base[1]), np.diag(rng.uniform(0.5, 1, 3)))


def cube_sphere(count: int) -> Shape:
    """The surface of the cube [-1, 1]^3 as six count x count grids."""
    line = np.linspace(-1, 1, max(count, 2))
    u, v = np.meshgrid(line, line, indexing="ij")
    face, parts = grid_faces(len(line), len(line)), []
    for axis in range(3):
        for side in (-1.0, 1.0):
            points = np.roll(np.stack([np.full_like(u, side), u, v], 2), axis, 2).reshape(-1, 3)
            parts.append((points, face if side > 0 else face[:, ::-1]))
    return welded(merge(parts))


def crossings(rng: Random) -> Shape:
    """Flat pieces through and against each other: crossings, T-junctions, coplanar overlaps, fans around an axis."""
    count = log_integer(rng, 2, 30)
    part = leaf_outline(rng)
    if rng.random() < 0.3:
        matrices = rotation_y(np.arange(count) * (np.pi / count))
        return instances((part[0] + [rng.uniform(0, 1), 0, 0], part[1]), matrices, np.zeros((count, 3)))
    matrices = rotations(rng, count)
    if rng.random() < 0.5:
        matrices = np.eye(3)[np.argsort(rng.random((count, 3)), 1)]
    sizes = np.exp(rng.uniform(-2, 0, (count, 1, 1)))
    return instances(part, matrices * sizes, rng.uniform(-0.6, 0.6, (count, 3)))


def leaf_outline(rng: Random) -> Shape:
    """A flat or slightly bent card about the origin in the xy plane: rectangle, disc, triangle or leaf."""
    choice = rng.integers(4)
    if choice == 0:
        ring = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.1, 1)]
    elif choice == 1:
        ring = circle(log_integer(rng, 5, 40))
    elif choice == 2:
        ring = circle(3) * [1, rng.uniform(0.2, 1)]
    else:
        angle = np.arange(10) * (2 * np.pi / 10)
        ring = np.stack([np.cos(angle), rng.uniform(0.15, 0.6) * np.sin(angle) * np.abs(np.sin(angle)) ** 0.5], 1)
    bend = rng.uniform(-0.4, 0.4) * (rng.random() < 0.5)
    vertices = np.concatenate([np.zeros((1, 3)), np.column_stack([ring, bend * ring[:, 0] ** 2])])
    index = np.arange(1, len(vertices))
    return vertices, np.stack([np.zeros_like(index), index, np.roll(index, -1)], 1)


def foliage(rng: Random) -> Shape:
    """A trunk, branches and many leaves, each a few loose triangles."""
    branches = int(rng.integers(2, 14))
    direction = rng.normal(size=(branches, 3)) + np.array([0, rng.uniform(0, 2), 0])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    root = np.stack([np.zeros(branches), rng.uniform(0.3, 1.0, branches), np.zeros(branches)], 1)
    leaf = leaf_outline(rng)
    count = min(log_integer(rng, 60, 3000), 40_000 // len(leaf[1]))
    branch = rng.integers(branches, size=count)
    along = rng.beta(2, 1, count)[:, None]
    place = root[branch] + direction[branch] * along * 0.8 + rng.normal(0, 0.06, (count, 3))
    size = log_uniform(rng, 0.01, 0.15) * np.exp(rng.normal(0, 0.3, (count, 1, 1)))
    parts = [instances(leaf, rotations(rng, count) * size, place)]
    thick = log_uniform(rng, 0.005, 0.06)
    outline = circle(int(rng.integers(3, 12)), thick)
    trunk = np.linspace([0, 0, 0], [0.0, 1.0, 0], 6) + rng.normal(0, 0.03, (6, 3))
    parts.append(sweep(trunk, outline * 1.6, scale=np.linspace(1.3, 0.6, 6)))
    for start, way in zip(root, direction, strict=True):
        twig = np.linspace(start, start + 0.8 * way, 5) + rng.normal(0, 0.02, (5, 3))
        parts.append(sweep(twig, outline, scale=np.linspace(1, 0.2, 5)))
    return merge(parts)


def scales(rng: Random) -> Shape:
    """Cards laid on a curved base like feathers, tiles or shingles: nearly parallel sheets at small distances."""
    base = sphere(12, 24) if rng.random() < 0.5 else revolve(np.array([[0.6, -1.0], [1.0, 1.0]]), 32)
    leaf = leaf_outline(rng)
    count = min(log_integer(rng, 50, 1200), 40_000 // len(leaf[1]))
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tilt: Array = normal + rng.normal(0, 0.2, (count, 3))
    frames = frames_along(tilt)[:, :, [0, 2, 1]] * log_uniform(rng, 0.05, 0.25)
    return merge([base, instances(leaf, frames, normal * (1 + log_uniform(rng, 0.002, 0.05)))])
