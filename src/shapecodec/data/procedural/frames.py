"""Thin members and assemblies: rods, lattices, tubes along curves, buildings, letters, furniture."""

from __future__ import annotations

import numpy as np

from shapecodec.data.procedural.parts import (
    Array,
    Random,
    Shape,
    beams,
    boxes,
    circle,
    extrude,
    extrude_ring,
    instances,
    log_integer,
    log_uniform,
    merge,
    moved,
    revolve,
    sphere,
    sweep,
    torus,
)


def section(rng: Random, thickness: float) -> Array:
    """The outline of a rod: square, flat, or a polygon of 3 to 24 sides."""
    sides = int(rng.choice([3, 4, 4, 6, 8, 12, 24]))
    return circle(sides, thickness, np.pi / sides) * [1.0, rng.choice([1.0, rng.uniform(0.2, 1)])]


def wire_frame(rng: Random) -> Shape:
    """Rods between random points, each to its nearest ones, with or without balls at the joints."""
    count = log_integer(rng, 5, 120)
    points = rng.uniform(-1, 1, (count, 3)) * rng.uniform(0.3, 1, 3)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    nearest = np.argsort(distance, 1)[:, 1 : int(rng.integers(2, 5))]
    pairs = np.stack([np.repeat(np.arange(count), nearest.shape[1]), nearest.ravel()], 1)
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    thickness = log_uniform(rng, 0.003, 0.06)
    parts = [beams(points[pairs[:, 0]], points[pairs[:, 1]], section(rng, thickness))]
    if rng.random() < 0.5:
        ball = moved(sphere(6, 10), thickness * rng.uniform(1, 3))
        parts.append(instances(ball, np.tile(np.eye(3), (count, 1, 1)), points))
    return merge(parts)


def lattice(rng: Random) -> Shape:
    """Bars on a regular grid in two or three directions: scaffolds, fences, grilles."""
    cells = rng.integers(1, 9, 3)
    if rng.random() < 0.5:
        cells[rng.integers(3)] = 0
    starts, ends = [], []
    for axis in range(3):
        if cells[axis] == 0 or (rng.random() < 0.2 and axis != int(np.argmax(cells))):
            continue
        others = [k for k in range(3) if k != axis]
        a, b = np.meshgrid(np.arange(cells[others[0]] + 1), np.arange(cells[others[1]] + 1), indexing="ij")
        start = np.zeros((a.size, 3))
        start[:, others[0]], start[:, others[1]] = a.ravel(), b.ravel()
        end = start.copy()
        end[:, axis] = cells[axis]
        starts.append(start)
        ends.append(end)
    spacing = rng.uniform(0.4, 1, 3)
    outline = section(rng, log_uniform(rng, 0.01, 0.15))
    shape = beams(np.concatenate(starts) * spacing, np.concatenate(ends) * spacing, outline)
    if rng.random() < 0.3:  # diagonal braces
        low = rng.integers(0, np.maximum(cells, 1), (12, 3))
        high = np.minimum(low + rng.integers(0, 2, (12, 3)), cells)
        proper = (low != high).any(1)
        if proper.any():
            shape = merge([shape, beams(low[proper] * spacing, high[proper] * spacing, outline * 0.7)])
    return shape


def perforated(rng: Random) -> Shape:
    """A plate with round, square or polygonal holes, cell beside cell."""
    segments, rows, columns = 4 * log_integer(rng, 1, 10), int(rng.integers(1, 10)), int(rng.integers(1, 10))
    angle = np.arange(segments) * (2 * np.pi / segments) + np.pi / 4
    direction = np.stack([np.cos(angle), np.sin(angle)], 1)
    square = direction / np.abs(direction).max(1, keepdims=True) * 0.5
    hole = direction * rng.uniform(0.1, 0.48) if rng.random() < 0.7 else square * rng.uniform(0.2, 0.98)
    cell = extrude_ring(square, hole, log_uniform(rng, 0.01, 0.6))
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    place = np.stack([i.ravel(), 0 * i.ravel(), j.ravel()], 1).astype(np.float64)
    return instances(cell, np.tile(np.eye(3), (len(place), 1, 1)), place)


def tube(rng: Random) -> Shape:
    """A tube along a knot, helix or wandering curve; round, flat, square or star-shaped, of varying thickness."""
    count, sides = log_integer(rng, 40, 400), log_integer(rng, 3, 24)
    t = np.arange(count) / count
    closed, turn = False, 2 * np.pi * t
    choice = rng.integers(4)
    if choice == 0:
        p, q = rng.integers(1, 4), rng.integers(2, 7)
        radius = 1 + 0.4 * np.cos(q * turn)
        curve, closed = (
            np.stack([radius * np.cos(p * turn), 0.4 * np.sin(q * turn), radius * np.sin(p * turn)], 1),
            True,
        )
    elif choice == 1:
        wave = np.arange(1, 5)
        phase = turn[:, None, None] * wave[:, None] + rng.uniform(0, 2 * np.pi, (4, 3))
        curve, closed = (np.sin(phase) * (rng.normal(size=(4, 3)) / wave[:, None])).sum(1), True
    elif choice == 2:
        rounds = rng.uniform(1, 14)
        reach = 1 - t * rng.choice([0.0, rng.uniform(0, 0.9)])
        curve = np.stack([reach * np.cos(rounds * turn), t * rng.uniform(0.1, 3), reach * np.sin(rounds * turn)], 1)
    else:
        steps = np.cumsum(rng.normal(size=(int(rng.integers(3, 12)), 3)), 0)
        knots = np.linspace(0, 1, len(steps))
        curve = np.stack([np.interp(t, knots, steps[:, c]) for c in range(3)], 1)
    outline = circle(sides, 1 - rng.choice([0.0, 0.4]) * (np.arange(sides) % 2)) * [
        1,
        rng.choice([1.0, rng.uniform(0.02, 1)]),
    ]
    extent = np.ptp(curve, axis=0).max()
    rounds = int(rng.integers(1, 20))
    scale = 1 + rng.choice([0.0, rng.uniform(0, 0.8)]) * np.sin(rounds * turn)
    return sweep(curve, outline * extent * log_uniform(rng, 0.005, 0.12), closed=closed, scale=scale)


def chain(rng: Random) -> Shape:
    """Interlocked links, each a stretched torus turned against the last."""
    link = moved(
        torus(log_integer(rng, 8, 40), log_integer(rng, 4, 16), log_uniform(rng, 0.08, 0.3)), np.diag([1, 1, 0.7])
    )
    count = int(rng.integers(2, 12))
    quarter = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    matrices = np.stack([np.eye(3) if k % 2 else quarter for k in range(count)])
    place = np.stack([np.arange(count) * 1.45, 0.1 * rng.normal(size=count), 0.1 * rng.normal(size=count)], 1)
    return instances(link, matrices, place)


def buildings(rng: Random) -> Shape:
    """Blocks of houses: stacked boxes, roofs, rows of windows as raised or sunk frames, fences and columns."""
    count = log_integer(rng, 1, 10)
    parts = [moved(boxes(np.array([[3.0, 0.05, 3.0]]), np.zeros((1, 3))))] if rng.random() < 0.6 else []
    for _ in range(count):
        size = np.array([rng.uniform(0.3, 1), rng.uniform(0.3, 2.5), rng.uniform(0.3, 1)])
        corner = np.array([rng.uniform(-1.2, 1.2), 0, rng.uniform(-1.2, 1.2)])
        parts.append(boxes(size[None], (corner + np.array([0, size[1] / 2, 0]))[None]))
        floors, bays = log_integer(rng, 1, 12), log_integer(rng, 1, 8)
        i, j, side = (k.ravel() for k in np.meshgrid(np.arange(floors), np.arange(bays), [-1, 1], indexing="ij"))
        window = np.array([0.5 * size[0] / bays, 0.5 * size[1] / floors, log_uniform(rng, 0.004, 0.08)])
        x = (j + 0.5) / bays * size[0] - size[0] / 2
        place = np.stack([x, (i + 0.5) / floors * size[1], side * size[2] / 2], 1) + corner
        parts.append(boxes(np.tile(window, (len(place), 1)), place))
        if rng.random() < 0.5:
            roof = revolve(np.array([[0.8, 0.0], [rng.uniform(0, 0.5), rng.uniform(0.1, 0.6)]]), 4)
            parts.append(moved(roof, np.diag([size[0], 1, size[2]]), corner + np.array([0, size[1], 0])))
        else:
            rails = np.tile([size[0], 0.04, 0.03], (3, 1))
            parts.append(boxes(rails, corner + [0, size[1], 0] + np.arange(3)[:, None] * [0, 0.07, 0]))
    return merge(parts)


_SEGMENTS = np.array(  # start x, start y, end x, end y of the strokes that letters are chosen from
    [
        [0, 0, 1, 0], [0, 1, 1, 1], [0, 2, 1, 2], [0, 0, 0, 1], [0, 1, 0, 2], [1, 0, 1, 1], [1, 1, 1, 2],
        [0, 0, 1, 2], [0, 2, 1, 0], [0.5, 0, 0.5, 2], [0, 1, 0.5, 2], [0.5, 0, 1, 1],
    ]
)  # fmt: skip


def letters(rng: Random) -> Shape:
    """Rows of letter-like glyphs made of strokes, standing free or raised from a plate."""
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 10))
    width, depth = rng.uniform(0.05, 0.3), log_uniform(rng, 0.02, 1.0)
    sizes, places, turns = [], [], []
    for row in range(rows):
        for column in range(columns):
            stroke = _SEGMENTS[rng.random(len(_SEGMENTS)) < rng.uniform(0.2, 0.6)]
            along = stroke[:, 2:] - stroke[:, :2]
            length = np.linalg.norm(along, axis=1)
            x, y = (along / np.maximum(length, 1e-9)[:, None]).T
            zero, one = np.zeros_like(x), np.ones_like(x)
            turns.append(np.stack([x, -y, zero, y, x, zero, zero, zero, one], 1).reshape(-1, 3, 3))
            sizes.append(np.stack([length + width, np.full_like(x, width), np.full_like(x, depth)], 1))
            middle = (stroke[:, :2] + stroke[:, 2:]) / 2 + [column * 1.5, -row * 2.6]
            places.append(np.column_stack([middle, zero]))
    plate = np.array([[columns * 1.5 + 0.3, rows * 2.6 + 0.3, depth * rng.uniform(0.1, 1)]])
    centre = np.array([[columns * 0.75 - 0.25, 2.3 - rows * 1.3, -depth / 2]])
    parts = [boxes(np.concatenate(sizes), np.concatenate(places), np.concatenate(turns))]
    if rng.random() < 0.5 or len(parts[0][1]) == 0:
        parts.append(boxes(plate, centre))
    return merge(parts)


def furniture(rng: Random) -> Shape:
    """Tables, chairs and shelves: boards, thin legs, slats and drawers."""
    width, depth, height = rng.uniform(0.4, 1.5), rng.uniform(0.3, 1), rng.uniform(0.3, 1.5)
    board = log_uniform(rng, 0.008, 0.1)
    leg = log_uniform(rng, 0.01, 0.12)
    corner = np.array([[x, 0, z] for x in (-0.5, 0.5) for z in (-0.5, 0.5)]) * [width - leg, 1, depth - leg]
    parts = [beams(corner, corner + [0, height, 0] + corner * rng.uniform(-0.2, 0.1), section(rng, leg / 2))]
    levels = np.linspace(rng.uniform(0, 1), 1, log_integer(rng, 1, 8)) * height
    shelf = np.tile([width, board, depth], (len(levels), 1))
    parts.append(boxes(shelf, levels[:, None] * [0, 1, 0]))
    if rng.random() < 0.5:  # a back of slats
        count = int(rng.integers(1, 12))
        x = (np.arange(count) + 0.5) / count * width - width / 2
        tall = rng.uniform(0.3, 1)
        place = np.stack([x, np.full(count, height + tall / 2), np.full(count, -depth / 2)], 1)
        parts.append(boxes(np.tile([width / count * rng.uniform(0.3, 0.99), tall, board], (count, 1)), place))
    if rng.random() < 0.4:  # drawers with knobs
        count = int(rng.integers(1, 5))
        y = (np.arange(count) + 0.5) / count * height
        place = np.stack([0 * y, y, np.full(count, depth / 2)], 1)
        parts.append(boxes(np.tile([width * 0.9, height / count * 0.92, 0.03], (count, 1)), place))
        knob = moved(sphere(8, 12), 0.03)
        parts.append(instances(knob, np.tile(np.eye(3), (count, 1, 1)), place + np.array([0, 0, 0.03])))
    return merge(parts)


def wheel(rng: Random) -> Shape:
    """Rims with spokes, tyres with tread, fans and propellers."""
    count, blades = log_integer(rng, 12, 80), int(rng.integers(3, 40))
    thick = rng.uniform(0.03, 0.25)
    parts = [torus(count, log_integer(rng, 4, 24), thick), extrude(circle(24, 0.15), thick * rng.uniform(0.5, 3))]
    angle = np.arange(blades) * (2 * np.pi / blades)
    outward = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1)
    parts.append(beams(0.1 * outward, outward, section(rng, log_uniform(rng, 0.004, 0.05))))
    if rng.random() < 0.5:
        tread = beams(outward * (1 + thick) - [0, thick, 0], outward * (1 + thick) + [0, thick, 0], circle(4, 0.03))
        parts.append(tread)
    return merge(parts)
