"""Building bricks of the procedural shapes: arrays in, arrays out, no loops over triangles.

A `Shape` is a pair (vertices (V, 3) float64, faces (F, 3) int64). Lengths are in units of the shape, which
is normalised at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Shape = tuple[NDArray[np.floating], NDArray[np.integer]]
Random = np.random.Generator


def log_uniform(rng: Random, low: float, high: float) -> float:
    """A number whose logarithm is uniform: every scale of detail is equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_integer(rng: Random, low: int, high: int) -> int:
    """An integer in [low, high], small ones more often."""
    return min(high, int(log_uniform(rng, low, high + 1)))


def merge(parts: Sequence[Shape]) -> Shape:
    """Parts side by side in one shape; overlaps stay, as they do in real files."""
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
    faces = [part[1] + start for part, start in zip(parts, starts, strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


def moved(shape: Shape, matrix: Array | float = 1.0, offset: Sequence[float] | Array = (0.0, 0.0, 0.0)) -> Shape:
    """Vertices p -> matrix p + offset; a number is a uniform scale."""
    vertices = shape[0] * matrix if isinstance(matrix, float | int) else shape[0] @ np.asarray(matrix).T
    return vertices + np.asarray(offset, np.float64), shape[1]


def instances(shape: Shape, matrices: Array, offsets: Array) -> Shape:
    """Copies of a shape under K linear maps (K, 3, 3) and offsets (K, 3)."""
    vertices, faces = shape
    copies = np.einsum("kij,vj->kvi", matrices, vertices) + offsets[:, None]
    shifts = np.arange(len(offsets))[:, None, None] * len(vertices)
    return copies.reshape(-1, 3), (faces[None] + shifts).reshape(-1, 3)


def rotations(rng: Random, count: int) -> Array:
    """(count, 3, 3) rotations, uniform over SO(3), from random unit quaternions."""
    w, x, y, z = (q := rng.normal(size=(4, count))) / np.linalg.norm(q, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def rotation_y(angle: float | Array) -> Array:
    """(..., 3, 3) rotation about the y axis by an angle in radians."""
    cosine, sine, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = [cosine, zero, sine, zero, one, zero, -sine, zero, cosine]
    return np.stack(rows, -1).reshape(*np.shape(angle), 3, 3)


def frames_along(directions: Array) -> Array:
    """(K, 3, 3) rotations whose second column (the y axis) points along each direction (K, 3)."""
    axis = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    helper = np.where(np.abs(axis[:, :1]) < 0.7, np.array([[1.0, 0, 0]]), np.array([[0, 0, 1.0]]))
    side = np.cross(axis, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([side, axis, np.cross(side, axis)], 2)


def grid_faces(rows: int, columns: int, *, wrap_rows: bool = False, wrap_columns: bool = False) -> NDArray[np.int64]:
    """Two triangles a cell of a rows x columns array of vertices, counter-clockwise seen from rows x columns."""
    row = np.arange(rows if wrap_rows else rows - 1)
    column = np.arange(columns if wrap_columns else columns - 1)
    i, j = np.meshgrid(row, column, indexing="ij")
    i, j = i.ravel(), j.ravel()
    below, right = (i + 1) % rows, (j + 1) % columns
    a, b, c, d = i * columns + j, below * columns + j, below * columns + right, i * columns + right
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int64)


def box(size: Sequence[float] | Array = (1.0, 1.0, 1.0)) -> Shape:
    """A cuboid about the origin: 8 vertices, 12 faces, outward."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return corners * np.asarray(size, np.float64), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def boxes(sizes: Array, centres: Array, matrices: Array | None = None) -> Shape:
    """K cuboids of sizes (K, 3) at centres (K, 3), turned by matrices (K, 3, 3) if given."""
    scale = np.einsum("kj,ij->kij", sizes, np.eye(3))
    return instances(box(), scale if matrices is None else matrices @ scale, centres)


def beams(starts: Array, ends: Array, outline: Array) -> Shape:
    """K straight rods from starts to ends (K, 3), all with the cross-section outline (S, 2), closed by flat ends."""
    along = ends - starts
    prism = extrude(outline, 1.0)
    stretch = frames_along(along)
    stretch[:, :, 1] *= np.linalg.norm(along, axis=1, keepdims=True)
    return instances(prism, stretch, (starts + ends) / 2)


def circle(segments: int, radius: float | Array = 1.0, phase: float = 0.0) -> Array:
    """(segments, 2) points on a circle, counter-clockwise."""
    angle = np.arange(segments) * (2 * np.pi / segments) + phase
    return np.stack([np.cos(angle), np.sin(angle)], 1) * np.reshape(radius, (-1, 1))


def extrude(outline: Array, height: float, *, rings: int = 1, caps: bool = True) -> Shape:
    """A prism about y over a closed outline (S, 2) that every ray from the origin crosses once."""
    levels = np.linspace(-height / 2, height / 2, rings + 1)
    x, y = np.broadcast_arrays(outline[None, :, 0], levels[:, None])
    z = np.broadcast_to(outline[None, :, 1], x.shape)
    count = len(outline)
    vertices = np.stack([x, y, z], 2).reshape(-1, 3)
    faces = [grid_faces(rings + 1, count, wrap_columns=True)]
    if caps:
        index = np.arange(count)
        following = (index + 1) % count
        middle, top = len(vertices), rings * count
        faces.append(np.stack([np.full(count, middle), index, following], 1))
        faces.append(np.stack([np.full(count, middle + 1), top + following, top + index], 1))
        vertices = np.concatenate([vertices, [[0, -height / 2, 0], [0, height / 2, 0]]])
    return vertices, np.concatenate(faces).astype(np.int64)


def extrude_ring(outer: Array, inner: Array, height: float) -> Shape:
    """A prism about y with a hole; outer and inner outlines (S, 2) have the same number of points."""
    profile = np.stack([outer, outer, inner, inner])
    level = np.array([-height / 2, height / 2, height / 2, -height / 2])[:, None]
    vertices = np.stack([profile[..., 0], np.broadcast_to(level, profile.shape[:2]), profile[..., 1]], 2)
    return vertices.reshape(-1, 3), grid_faces(4, len(outer), wrap_rows=True, wrap_columns=True)


def revolve(profile: Array, segments: int, *, closed: bool = False, turn: float = 2 * np.pi) -> Shape:
    """A profile (P, 2) of (radius, y) turned about y; `closed` joins its ends, a partial `turn` leaves it open."""
    whole = turn >= 2 * np.pi - 1e-9
    angle = np.arange(segments if whole else segments + 1) * (turn / segments)
    x = profile[:, None, 0] * np.cos(angle)
    z = profile[:, None, 0] * np.sin(angle)
    y = np.broadcast_to(profile[:, None, 1], x.shape)
    faces = grid_faces(len(profile), len(angle), wrap_rows=closed, wrap_columns=whole)
    return np.stack([x, y, z], 2).reshape(-1, 3), faces


def sweep(curve: Array, outline: Array, *, closed: bool = False, scale: Array | None = None) -> Shape:
    """A tube: the outline (S, 2) carried along a curve (P, 3), flat ends unless `closed`; scale (P,) thickens it."""
    after, before = np.roll(curve, -1, 0), np.roll(curve, 1, 0)
    if not closed:
        after[-1], before[0] = curve[-1], curve[0]
    tangent = after - before
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    side, up = transported_frames(tangent, closed=closed)
    factor = np.ones(len(curve)) if scale is None else scale
    section = outline[None] * factor[:, None, None]
    rings = curve[:, None] + section[..., :1] * side[:, None] + section[..., 1:] * up[:, None]
    faces = grid_faces(len(curve), len(outline), wrap_rows=closed, wrap_columns=True)[:, ::-1]
    vertices = rings.reshape(-1, 3)
    if not closed:
        count, index = len(outline), np.arange(len(outline))
        following, first, last = (index + 1) % count, len(vertices), (len(curve) - 1) * count
        start = np.stack([np.full(count, first), following, index], 1)
        end = np.stack([np.full(count, first + 1), last + index, last + following], 1)
        vertices = np.concatenate([vertices, curve[:1], curve[-1:]])
        faces = np.concatenate([faces, start, end])
    return vertices, faces


def transported_frames(tangent: Array, *, closed: bool) -> tuple[Array, Array]:
    """Normals (P, 3) and binormals (P, 3) that twist as little as possible along unit tangents (P, 3)."""
    side = np.zeros_like(tangent)
    current = frames_along(tangent[:1])[0][:, 0]
    for i, direction in enumerate(tangent):
        current = current - direction * (direction @ current)
        current /= max(float(np.sqrt(current @ current)), 1e-12)
        side[i] = current
    up = np.cross(tangent, side)
    if closed:  # spread the angle that is missing after one round evenly, so that the seam closes
        final = side[-1] - tangent[0] * (tangent[0] @ side[-1])
        missing = np.arctan2(final @ up[0], final @ side[0])
        angle = (-missing * np.arange(len(tangent)) / len(tangent))[:, None]
        side, up = side * np.cos(angle) + up * np.sin(angle), up * np.cos(angle) - side * np.sin(angle)
    return side, up


def sphere(rows: int, columns: int) -> Shape:
    """A unit sphere by latitude and longitude."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    return revolve(np.stack([np.cos(latitude).clip(0), np.sin(latitude)], 1), columns)


def torus(rows: int, columns: int, tube: float) -> Shape:
    """A torus of radius 1 about y whose tube has radius `tube`."""
    return revolve(circle(columns, tube) + np.array([1.0, 0.0]), rows, closed=True)


def rounded_box(size: Array, radius: float, segments: int) -> Shape:
    """A cuboid whose edges are rounded by `radius` in 2 * segments facets."""
    steps = np.linspace(0, 1, segments + 1)
    angle = (np.concatenate([steps - 1, steps]) * np.pi / 4)[
        None
    ]  # two copies of zero: the flat part lies between them
    tangent = np.tan(angle[0])
    u, v = np.meshgrid(tangent, tangent, indexing="ij")
    count = len(tangent)
    sign_line = np.repeat([-1.0, 1.0], segments + 1)
    sign_u, sign_v = np.meshgrid(sign_line, sign_line, indexing="ij")
    face, parts = grid_faces(count, count), []
    for axis in range(3):
        for side in (-1.0, 1.0):
            direction = np.stack([np.full_like(u, side), u, v], 2)
            sign = np.stack([np.full_like(u, side), sign_u, sign_v], 2)
            unit = direction / np.linalg.norm(direction, axis=2, keepdims=True)
            order = np.roll(np.arange(3), axis)
            points = (
                sign[..., order] * (np.asarray(size)[None, None] / 2 - radius) + unit[..., order] * radius
            ).reshape(-1, 3)
            parts.append((points, face if side > 0 else face[:, ::-1]))
    return merge(parts)


def waves(points: Array, rng: Random, *, frequency: float, octaves: int = 1, roughness: float = 0.5) -> Array:
    """(V,) smooth noise of about unit size: sums of 8 sine waves of random direction an octave."""
    total, weight = np.zeros(len(points)), 1.0
    for octave in range(octaves):
        direction = rng.normal(size=(3, 8)) * frequency * 2.0**octave
        total += weight * np.sin(points @ direction + rng.uniform(0, 2 * np.pi, 8)).sum(1) / 2
        weight *= roughness
    return total


def vertex_normals(shape: Shape) -> Array:
    """(V, 3) unit normals, the area-weighted mean of the faces around each vertex."""
    vertices, faces = shape
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    sums = np.stack([np.bincount(faces.ravel(), np.repeat(normal[:, c], 3), len(vertices)) for c in range(3)], 1)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def welded(shape: Shape) -> Shape:
    """Vertices in the same cell of 2^-20 of the extent become one; degenerate faces and unused vertices go."""
    vertices, faces = shape
    low, high = vertices.min(0), vertices.max(0)
    per_length = (2**20 - 2) / max(float((high - low).max()), 1e-12)
    # Shifted by a number with nothing round about it: halves and eighths of the extent would lie on cells' borders.
    x, y, z = np.floor((vertices - low) * per_length + 0.28713).astype(np.int64).T
    _, first, inverse = np.unique((x << 40) | (y << 20) | z, return_index=True, return_inverse=True)
    return tidy((vertices[first], inverse.reshape(-1)[faces]))


def tidy(shape: Shape) -> Shape:
    """Without faces of zero area and without vertices that no face uses."""
    vertices, faces = shape
    corner = vertices[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    faces = faces[area > 1e-14 * max(float(np.ptp(vertices, axis=0).max()), 1e-12) ** 2]
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def unit_box(shape: Shape, longest: float = 1.0) -> Shape:
    """Centred at the origin, the longest side scaled to `longest`."""
    low, high = shape[0].min(0), shape[0].max(0)
    return (shape[0] - (low + high) / 2) * (longest / max(float((high - low).max()), 1e-12)), shape[1]
