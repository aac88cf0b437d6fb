"""Closed shapes as machines and carpenters make them: planes, creases of every angle, turned and extruded walls."""

from __future__ import annotations

import numpy as np

from shapecodec.data.procedural.parts import (
    Array,
    Random,
    Shape,
    box,
    boxes,
    circle,
    extrude,
    extrude_ring,
    frames_along,
    grid_faces,
    instances,
    log_integer,
    log_uniform,
    merge,
    moved,
    revolve,
    rotations,
    rounded_box,
    sphere,
    torus,
    welded,
)


def primitive(rng: Random) -> Shape:
    """A box, sphere, cylinder, cone, torus, capsule or rounded box of any tessellation, within about [-1, 1]."""
    segments = log_integer(rng, 3, 96)
    choice = rng.integers(7)
    if choice == 0:
        part = box((2, 2, 2))
    elif choice == 1:
        part = sphere(max(3, segments // 2), max(3, segments))
    elif choice == 2:
        part = extrude(circle(segments), 2.0)
    elif choice == 3:
        part = revolve(np.array([[0, -1], [1, -1], [rng.choice([0.0, rng.uniform(0, 1)]), 1], [0, 1]]), segments)
    elif choice == 4:
        part = torus(segments, log_integer(rng, 3, 40), log_uniform(rng, 0.02, 0.6))
    elif choice == 5:
        latitude = np.linspace(-np.pi / 2, np.pi / 2, 2 * max(2, segments // 4))
        half = np.where(np.arange(len(latitude)) < len(latitude) // 2, -1.0, 1.0) * rng.uniform(0.1, 1.5)
        part = revolve(np.stack([np.cos(latitude).clip(0), np.sin(latitude) + half], 1), segments)
    else:
        part = rounded_box(np.full(3, 2.0), log_uniform(rng, 0.01, 0.9), log_integer(rng, 1, 8))
    return moved(part, np.diag(np.exp(rng.normal(0, 0.4, 3))))


def primitives(rng: Random) -> Shape:
    """One to four primitives that overlap."""
    parts = []
    for matrix in rotations(rng, int(rng.integers(1, 5))):
        parts.append(moved(primitive(rng), matrix * log_uniform(rng, 0.3, 1), rng.uniform(-0.7, 0.7, 3)))
    return merge(parts)


def clutter(rng: Random) -> Shape:
    """A heap of overlapping primitives of every size: crossings, T-junctions, thin gaps, tiny parts by large ones."""
    axis_aligned = rng.random() < 0.5
    parts, budget = [], 40_000
    for _ in range(log_integer(rng, 4, 60)):
        part = primitive(rng)
        budget -= len(part[1])
        if budget < 0:
            break
        matrix = np.eye(3) if axis_aligned else rotations(rng, 1)[0]
        parts.append(moved(part, matrix * log_uniform(rng, 0.02, 0.5), rng.uniform(-1, 1, 3) * rng.uniform(0.2, 1)))
    return merge(parts) if parts else primitive(rng)


def star_outline(rng: Random, segments: int | None = None) -> Array:
    """A closed outline (S, 2) around the origin: a polygon, a wavy circle, a star or a superellipse."""
    count = segments or log_integer(rng, 5, 160)
    angle = np.sort(rng.uniform(0, 2 * np.pi, count)) if rng.random() < 0.3 and count > 12 else circle_angles(count)
    choice = rng.integers(4)
    radius: Array
    if choice == 0:
        radius = rng.uniform(0.4, 1.0, count)
        radius = radius if count < 24 else np.ones(count)
    elif choice == 1:
        radius = 1 + rng.uniform(0.05, 0.4) * np.sin(angle * rng.integers(2, 12))
    elif choice == 2:
        power = rng.choice([0.5, 1.0, 4.0, 20.0])
        radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
    else:
        points = int(rng.integers(3, 14))
        radius = 1 - rng.uniform(0.1, 0.6) * (np.arange(count) * points * 2 // count % 2)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] * [1, rng.uniform(0.4, 1)]


def circle_angles(count: int) -> Array:
    """(count,) evenly spaced angles in radians."""
    return np.arange(count) * (2 * np.pi / count)


def extrusion(rng: Random) -> Shape:
    """Outlines pulled into prisms, rings and stepped stacks; heights from foil to column."""
    outline, parts, level = star_outline(rng), [], 0.0
    for _ in range(int(rng.integers(1, 6))):
        height = log_uniform(rng, 0.01, 1.5)
        scale = rng.uniform(0.2, 1.0)
        part = (
            extrude(outline * scale, height)
            if rng.random() < 0.6
            else extrude_ring(outline * scale, outline * scale * (1 - log_uniform(rng, 0.005, 0.8)), height)
        )
        parts.append(moved(part, 1.0, (0, level + height / 2, 0)))
        level += height * rng.choice([1.0, 0.9])
    return merge(parts)


def revolution(rng: Random) -> Shape:
    """A turned part or a vessel: straight or curved profile, sharp edges, sometimes a thin wall or a partial turn."""
    knots = int(rng.integers(3, 12))
    y = np.cumsum(rng.uniform(0.02, 0.5, knots))
    radius = rng.uniform(0.1, 1, knots)
    if rng.random() < 0.5:  # a smooth profile, else one of straight pieces and steps
        fine = np.linspace(y[0], y[-1], log_integer(rng, 12, 120))
        bumps = np.exp(-(((fine[:, None] - y) / 0.25) ** 2))
        profile = np.stack([(bumps * radius).sum(1) / (bumps.sum(1) + 1e-9), fine], 1)
    else:
        profile = np.stack([radius, y], 1)
        if rng.random() < 0.5:
            profile = np.repeat(profile, 2, 0)
            profile[1:, 0] = np.roll(profile[:, 0], 1)[1:]
    turn = 2 * np.pi if rng.random() < 0.8 else rng.uniform(0.5, 5.5)
    segments = log_integer(rng, 4, 160)
    if rng.random() < 0.4:
        wall = log_uniform(rng, 0.002, 0.1)
        inner = profile[::-1] * [1, 1] - [wall, 0]
        return revolve(np.concatenate([profile, inner.clip([0.0, -9.0])]), segments, closed=True, turn=turn)
    ends = np.array([[0, profile[0, 1]]]), np.array([[0, profile[-1, 1]]])
    return revolve(np.concatenate([ends[0], profile, ends[1]]), segments, turn=turn)


def gear(rng: Random) -> Shape:
    """Spur and helical gears with a bore, a hub and sometimes spokes of their own thickness."""
    teeth, per_tooth = log_integer(rng, 6, 80), 8
    phase = np.arange(teeth * per_tooth) % per_tooth
    ramp = np.array([0, 0, 0.5, 1, 1, 1, 0.5, 0])
    depth = rng.uniform(0.05, 0.3)
    outer = circle(teeth * per_tooth, 1 - depth + depth * ramp[phase])
    bore = rng.uniform(0.1, 0.5)
    height = log_uniform(rng, 0.05, 0.8)
    rim_inside = rng.uniform(bore + 0.05, 1 - depth - 0.05)
    parts = [extrude_ring(outer, circle(len(outer), rim_inside), height)]
    parts.append(extrude_ring(circle(64, bore + 0.1), circle(64, bore), height * rng.uniform(0.8, 2)))
    if rng.random() < 0.5:
        parts.append(
            extrude_ring(circle(64, rim_inside + 0.02), circle(64, bore + 0.05), height * log_uniform(rng, 0.05, 0.9))
        )
    else:
        count = int(rng.integers(3, 9))
        middle = (rim_inside + bore + 0.1) / 2
        angle = circle_angles(count)
        size = np.tile([rim_inside - bore + 0.02, height * 0.6, rng.uniform(0.03, 0.2)], (count, 1))
        turn = frames_along(np.stack([-np.sin(angle), np.zeros(count), np.cos(angle)], 1))
        turn = np.stack([np.cross(turn[:, :, 1], [0.0, -1, 0]), np.tile([0.0, 1, 0], (count, 1)), turn[:, :, 1]], 2)
        parts.append(boxes(size, np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1) * middle, turn))
    shape = merge(parts)
    if rng.random() < 0.3:
        twist = shape[0][:, 1] * rng.uniform(-1, 1) / height * 0.5
        cosine, sine = np.cos(twist), np.sin(twist)
        x, y, z = shape[0].T
        shape = np.stack([cosine * x + sine * z, y, cosine * z - sine * x], 1), shape[1]
    return shape


def bolt(rng: Random) -> Shape:
    """A head, a shaft with a helical thread, and sometimes a nut and washers."""
    columns, pitch = log_integer(rng, 12, 64), log_uniform(rng, 0.03, 0.25)
    length = rng.uniform(0.8, 3)
    rows = int(min(length / pitch * 8, 45_000 / (2 * columns)))
    level = np.linspace(-length, 0, rows)
    angle = circle_angles(columns)
    phase = (level[:, None] / pitch + angle / (2 * np.pi)) % 1.0
    tooth = np.abs(2 * phase - 1) if rng.random() < 0.7 else (phase > 0.5) * 1.0
    start = 0.0 if rng.random() < 0.5 else -rng.uniform(0, 0.6) * length  # threads may end before the head
    radius = 0.5 - pitch * rng.uniform(0.3, 0.8) * tooth * (level[:, None] <= start)
    points = np.stack(
        [radius * np.cos(angle), np.broadcast_to(level[:, None], radius.shape), radius * np.sin(angle)], 2
    )
    outline = np.concatenate([points.reshape(-1, 3), [[0, -length, 0]]])
    index = np.arange(columns)
    tip = np.stack([np.full(columns, len(outline) - 1), index, (index + 1) % columns], 1)
    shaft = outline, np.concatenate([grid_faces(rows, columns, wrap_columns=True), tip])
    sides = int(rng.choice([4, 6, 6, 6, 8, 48]))
    head = moved(extrude(circle(sides, rng.uniform(0.7, 1.1)), thick := rng.uniform(0.2, 0.7)), 1.0, (0, thick / 2, 0))
    parts = [shaft, head]
    if rng.random() < 0.5:
        ring = extrude_ring(circle(48, rng.uniform(0.8, 1.3)), circle(48, 0.52), log_uniform(rng, 0.02, 0.2))
        parts.append(moved(ring, 1.0, (0, -0.15, 0)))
    if rng.random() < 0.5:
        nut = extrude_ring(_hexagon(48) * 0.9, circle(48, 0.5), 0.4)
        parts.append(moved(nut, 1.0, (0, -rng.uniform(0.3, 1) * length, 0)))
    return merge(parts)


def _hexagon(count: int) -> Array:
    """(count, 2) points on a regular hexagon."""
    angle = circle_angles(count)
    return circle(count, np.cos(np.pi / 6) / np.cos((angle % (np.pi / 3)) - np.pi / 6))


def chamfered(rng: Random) -> Shape:
    """Boxes with rounded or bevelled edges, alone, stacked or side by side with thin gaps."""
    count = int(rng.integers(1, 7))
    parts, cursor, gap = [], 0.0, log_uniform(rng, 0.002, 0.1)
    for _ in range(count):
        size = rng.uniform(0.15, 1, 3)
        radius = min(size) / 2 * log_uniform(rng, 0.02, 1)
        parts.append(moved(rounded_box(size, radius, log_integer(rng, 1, 10)), 1.0, (0, cursor + size[1] / 2, 0)))
        cursor += size[1] + gap
    return merge(parts)


def facets(rng: Random) -> Shape:
    """Convex polyhedra cut by random planes, like gems and rocks: flat faces that meet at every angle."""
    parts = []
    for matrix in rotations(rng, int(rng.integers(1, 3))):
        shape = moved(box((2, 2, 2)), np.diag(rng.uniform(0.4, 1, 3)))
        for direction in rng.normal(size=(log_integer(rng, 4, 32), 3)):
            normal = direction / np.linalg.norm(direction)
            reach = float((shape[0] @ normal).max())
            shape = cut_convex(shape, normal, reach * rng.uniform(0.7, 0.99))
        parts.append(moved(shape, matrix, rng.uniform(-0.8, 0.8, 3)))
    return merge(parts)


def cut_convex(shape: Shape, normal: Array, level: float) -> Shape:
    """The part of a closed convex shape with p . normal <= level, closed again by a flat fan."""
    vertices, faces = cut(shape, normal, level, weld=False)
    on_plane = np.flatnonzero(np.abs(vertices @ normal - level) < 1e-9)
    if len(on_plane) < 3:
        return vertices, faces
    centre = vertices[on_plane].mean(0)
    frame = frames_along(normal[None])[0]
    around = (vertices[on_plane] - centre) @ frame
    ring = on_plane[np.argsort(np.arctan2(around[:, 2], around[:, 0]))]
    fan = np.stack([np.full(len(ring), len(vertices)), np.roll(ring, -1), ring], 1)
    return welded((np.concatenate([vertices, centre[None]]), np.concatenate([faces, fan])))


def cut(shape: Shape, normal: Array, level: float, *, weld: bool = True) -> Shape:
    """The part of any shape with p . normal <= level, open where it was cut; crossing triangles are split exactly."""
    vertices, faces = shape
    height = vertices @ normal - level
    height = np.where(np.abs(height) < 1e-12, 0.0, height)
    outside = (height[faces] > 0).sum(1)
    kept = faces[outside == 0]
    corners, new_faces = [vertices], [kept]
    start = len(vertices)
    for count in (1, 2):
        crossing = faces[outside == count]
        lone = np.argmax((height[crossing] > 0) == (count == 1), axis=1)  # the corner alone on its side comes first
        a, b, c = (crossing[np.arange(len(crossing)), (lone + k) % 3] for k in range(3))
        if len(crossing) == 0:
            continue
        ratio_b = (height[a] / (height[a] - height[b]))[:, None]
        ratio_c = (height[a] / (height[a] - height[c]))[:, None]
        corners += [
            vertices[a] + ratio_b * (vertices[b] - vertices[a]),
            vertices[a] + ratio_c * (vertices[c] - vertices[a]),
        ]
        ab, ac = start + np.arange(len(a)), start + len(a) + np.arange(len(a))
        start += 2 * len(a)
        if count == 1:
            new_faces += [np.stack([ab, b, c], 1), np.stack([ab, c, ac], 1)]
        else:
            new_faces.append(np.stack([a, ab, ac], 1))
    joined = np.concatenate(corners), np.concatenate(new_faces)
    if len(joined[1]) == 0:
        return shape
    return welded(joined) if weld else joined


def studded(rng: Random) -> Shape:
    """A large part covered with small ones, as rivets, keys, spikes or scales are."""
    base = primitive(rng)
    part = primitive(rng)
    while len(part[1]) > 400:
        part = primitive(rng)
    count = min(log_integer(rng, 20, 1500), 45_000 // len(part[1]))
    vertices, faces = base
    corner = vertices[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(cross, axis=1)
    face = rng.choice(len(faces), count, p=area / area.sum())
    weight = rng.dirichlet((1, 1, 1), count)
    place = np.einsum("kc,kcd->kd", weight, corner[face])
    frame = frames_along(cross[face]) * (log_uniform(rng, 0.012, 0.15) * np.exp(rng.normal(0, 0.3, (count, 1, 1))))
    return merge([base, instances(part, frame, place)])
