"""Rate-distortion curves as one SVG: bytes a shape against an error, both logarithmic; a line a method."""

import math
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, told apart by all


def picture(points, error, title):
    """SVG text.

    Args:
        points: dicts with method, setting, bytes {mean} and `error` {mean, low, high}.
        error: key of the error, in thousandths of a length on the axis.
        title: one line.
    """
    x = _axis([point["bytes"]["mean"] / 1000 for point in points], LEFT, WIDTH - RIGHT)
    y = _axis([1000 * point[error][key] for point in points for key in ("low", "high")], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 22, title, "start", ' font-weight="bold"'),
    ]
    for value in _ticks(x):
        at = _place(x, value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 16, f"{value:g}"))
    for value in _ticks(y):
        at = _place(y, value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, at + 4, f"{value:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "kB a shape, mean"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    words = f"{error}, thousandths of the unit cube"
    parts.append(_text(16, middle, words, "middle", f' transform="rotate(-90 16 {middle})"'))
    for index, method in enumerate(dict.fromkeys(point["method"] for point in points)):
        own = sorted((point for point in points if point["method"] == method), key=lambda point: point["bytes"]["mean"])
        parts.append(_curve(own, error, x, y, COLOURS[index % len(COLOURS)]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(points, error, x, y, colour):
    """Markers with intervals, the line between them, settings, and the method's name behind the last one."""
    places = [(_place(x, p["bytes"]["mean"] / 1000), _place(y, 1000 * p[error]["mean"])) for p in points]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for point, (a, b) in zip(points, places, strict=True):
        low, high = (_place(y, 1000 * point[error][key]) for key in ("low", "high"))
        parts.append(f'<path d="M{a:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>')
        parts.append(_text(a + 6, b - 6, point["setting"], "start", ' font-size="10" fill="#555"'))
    a, b = places[-1]
    parts.append(_text(a + 8, b + 12, points[-1]["method"], "start", f' fill="{colour}" font-weight="bold"'))
    return "\n".join(parts)


def _axis(values, start, end):
    """(log of the least, of the most, start, end) with a little room."""
    low, high = (math.log10(bound) for bound in (min(values), max(values)))
    room = 0.06 * max(high - low, 0.3)
    return low - room, high + room, start, end


def _place(axis, value):
    low, high, start, end = axis
    return start + (math.log10(value) - low) / (high - low) * (end - start)


def _ticks(axis):
    """1, 2 and 5 of every power of ten within the axis."""
    powers = range(math.floor(axis[0]), math.ceil(axis[1]) + 1)
    values = [round(step * 10.0**power, 10) for power in powers for step in (1, 2, 5)]
    return [value for value in values if axis[0] <= math.log10(value) <= axis[1]]


def _text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
