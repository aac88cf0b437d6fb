"""Charts as inline SVG: an interval strip for a cell, a distribution for a metric, sizes against a metric for a run.

Colours are classes that the page's style sheet fills, so that a chart follows the light and the dark page; every series also has
its own shape or dash, so that colour is never the only difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shapecodec.evaluate.report.html import Html, tag
from shapecodec.evaluate.report.numbers import Scale, size_text
from shapecodec.evaluate.report.run import Score

_WIDTH, _LEFT, _RIGHT = 360.0, 34.0, 14.0
_HISTOGRAM, _GAP, _ECDF, _FOOT = 64.0, 14.0, 122.0, 34.0
_BINS = 24
_DECADES = 1.3  # values that span more than this many powers of ten get a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """A map from values to places.

    Args:
        low, high: ends in values, low < high.
        start, end: the same in pixels or percent.
        log: logarithmic; then low > 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands; values outside stand at the ends."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Three to six round values within the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            decades = [10.0**power for power in range(first, last + 1)]
            if len(decades) >= 3:
                return decades[:: math.ceil(len(decades) / 6)]
            fine = [m * 10.0**power for power in range(first - 1, last + 1) for m in (1, 2, 5)]
            return [value for value in fine if self.low * 0.999 <= value <= self.high * 1.001]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= max(m for m in (1, 2, 5) if m * step <= (self.high - self.low) / 3 * 1.0001)
        count = math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9)
        return [(math.ceil(self.low / step - 1e-9) + k) * step for k in range(count + 1)]


def span(values: Iterable[float], start: float, end: float, *, most: float | None = None) -> Axis:
    """An axis that shows all values: logarithmic where they are positive and span decades, else from zero where that is near.

    `most` is the largest possible value, such as 1 of a score: such an axis ends there.
    """
    known = sorted(values)
    low, high = known[0], known[-1]
    if low > 0 and most is None and math.log10(high / low) > _DECADES:
        return Axis(low / 1.15, high * 1.15, start, end, log=True)
    if most is not None and 0.6 * most < high <= most:
        room = max(most - low, 1e-6 * abs(most), 1e-12)
        return Axis(max(most - 1.08 * room, 0.0) if low >= 0 else low - 0.08 * room, most, start, end)
    room = high - low if high > low else max(abs(high), 1e-12)
    return Axis(0.0 if 0 <= low < 2 * room else low - 0.08 * room, high + 0.06 * room, start, end)


def strip(score: Score, axis: Axis, words: str) -> Html:
    """A line for a table's cell: the interval, the mean on it, floor and oracle. `axis` is in percent; `words` describe it."""
    marks: list[Html] = [tag("line", class_="rail", x1="0%", x2="100%", y1=11, y2=11)]
    if score.floor is not None:
        x = f"{axis.place(score.floor):.2f}%"
        marks.append(tag("line", class_="floor", x1=x, x2=x, y1=3, y2=19))
    if score.low is not None and score.high is not None:
        ends = (f"{axis.place(value):.2f}%" for value in (score.low, score.high))
        marks.append(tag("line", class_="interval", x1=next(ends), x2=next(ends), y1=11, y2=11))
    if score.oracle is not None:
        diamond = tag("path", class_="oracle", d="M0 5.5 L5.5 11 L0 16.5 L-5.5 11 Z")
        marks.append(tag("svg", diamond, x=f"{axis.place(score.oracle):.2f}%", overflow="visible"))
    if score.mean is not None:
        marks.append(tag("circle", class_="value", cx=f"{axis.place(score.mean):.2f}%", cy=11, r=4.2))
    return tag("svg", marks, class_="strip", role="img", aria_label=words, height=22)


def strip_axis(scores: Iterable[Score], *, most: float | None) -> Axis | None:
    """The common axis, in percent, of the strips of one metric; None where nothing is known."""
    known = [value for s in scores for value in (s.mean, s.low, s.high, s.floor, s.oracle) if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    if most is not None and 0.6 * most < high <= most:
        return Axis(low - 0.05 * max(most - low, 1e-9), most, 4.0, 96.0)
    start = min(low, 0.0) if low < 0.6 * high else low - 0.3 * max(high - low, 1e-3 * abs(high), 1e-12)
    return Axis(start, high + 1e-12, 4.0, 96.0)


def distribution(
    values: Sequence[float],
    floors: Sequence[float],
    oracles: Sequence[float],
    scale: Scale,
    words: str,
    most: float | None,
) -> Html:
    """A histogram of the values above the shares of shapes up to a value, for values, oracles and floors.

    Args:
        values: one a shape, at least one.
        floors, oracles: the same, or empty. Floors far below everything else, such as exact zeros, are not drawn.
        scale: of the tick labels.
        words: what a reader who sees nothing is told.
        most: the largest possible value, or None.
    """
    floors = floors if floors_fit(values, floors, oracles) else []
    axis = span([*values, *oracles, *floors], _LEFT, _WIDTH - _RIGHT, most=most)
    top = _HISTOGRAM + _GAP
    height = top + _ECDF + _FOOT
    share = Axis(0.0, 1.0, top + _ECDF, top)
    parts = [*_grid(axis, share, scale, height), *_bars(values, axis, scale)]
    for name, series in (("floor", floors), ("oracle", oracles), ("value", values)):
        if series:
            parts.append(tag("path", class_=f"ecdf {name}", d=_steps(series, axis, share)))
    view = f"0 0 {_WIDTH:.0f} {height:.0f}"
    return tag("svg", parts, class_="chart", role="img", aria_label=words, viewBox=view)


def floors_fit(values: Sequence[float], floors: Sequence[float], oracles: Sequence[float]) -> bool:
    """Whether floors can be drawn on the axis of values and oracles without pushing these together."""
    return bool(floors) and min(floors) > 0.02 * min(*values, *oracles, max(values))


def _grid(axis: Axis, share: Axis, scale: Scale, height: float) -> list[Html]:
    base = share.start
    parts = [tag("line", class_="axis", x1=axis.start, x2=axis.end, y1=y, y2=y) for y in (_HISTOGRAM, base)]
    for part in (0.0, 0.5, 1.0):
        y = f"{share.place(part):.1f}"
        if part:
            parts.append(tag("line", class_="grid", x1=axis.start, x2=axis.end, y1=y, y2=y))
        parts.append(tag("text", f"{part:.0%}", class_="tick", x=axis.start - 6, y=float(y) + 3.5, text_anchor="end"))
    for value in axis.ticks():
        x = axis.place(value)
        parts.append(tag("line", class_="grid", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=share.end, y2=base))
        label = tick_text(value, scale)
        parts.append(tag("text", label, class_="tick", x=f"{x:.1f}", y=base + 15, text_anchor="middle"))
    if scale.exponent:
        parts.append(tag("text", scale.factor(), class_="tick", x=axis.end, y=height - 4, text_anchor="end"))
    return parts


def tick_text(value: float, scale: Scale) -> str:
    """A round value with as few digits as it has."""
    return f"{value / 10.0**scale.exponent:.6g}".replace("-", "\N{MINUS SIGN}")


def _bars(values: Sequence[float], axis: Axis, scale: Scale) -> list[Html]:
    width = (axis.end - axis.start) / _BINS
    counts, lows, highs = [0] * _BINS, [math.inf] * _BINS, [-math.inf] * _BINS
    for value in values:
        index = min(int((axis.place(value) - axis.start) / width), _BINS - 1)
        counts[index] += 1
        lows[index], highs[index] = min(lows[index], value), max(highs[index], value)
    parts = []
    for index, count in enumerate(counts):
        if count:
            tall = (_HISTOGRAM - 6) * count / max(counts)
            noun = "shape" if count == 1 else "shapes"
            hint = tag(
                "title", f"{count} {noun}, {scale.text(lows[index])} to {scale.text(highs[index])} {scale.factor()}"
            )
            x = f"{axis.start + index * width + 0.6:.1f}"
            bar = {"x": x, "y": f"{_HISTOGRAM - tall:.1f}", "width": f"{width - 1.2:.1f}", "height": f"{tall:.1f}"}
            parts.append(tag("rect", hint, class_="bar", rx=1.5, **bar))
    return parts


def _steps(values: Sequence[float], axis: Axis, share: Axis) -> str:
    """The path of the share of values up to x."""
    words = [f"M{axis.start:.1f} {share.start:.1f}"]
    for rank, value in enumerate(sorted(values), 1):
        words.append(f"H{axis.place(value):.1f}V{share.place(rank / len(values)):.1f}")
    return " ".join([*words, f"H{axis.end:.1f}"])


@dataclass(frozen=True)
class Dot:
    """A shape in a scatter chart: its place, its series (0 to 5), its words and the anchor that it leads to."""

    x: float
    y: float
    series: int
    words: str
    anchor: str


def scatter(dots: Sequence[Dot], scale: Scale, words: str, most: float | None) -> Html:
    """Sizes in bytes (x) against a metric (y)."""
    height = _HISTOGRAM + _GAP + _ECDF + _FOOT
    left, right, base = _LEFT + 6, _WIDTH - _RIGHT, height - _FOOT
    across = span([dot.x for dot in dots], left, right)
    up = span([dot.y for dot in dots], base, 8.0, most=most)
    parts = []
    for value in across.ticks():
        x = f"{across.place(value):.1f}"
        parts.append(tag("line", class_="grid", x1=x, x2=x, y1=8, y2=base))
        parts.append(tag("text", _size_tick(value), class_="tick", x=x, y=base + 15, text_anchor="middle"))
    for value in up.ticks():
        y = up.place(value)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}"))
        text = tick_text(value, scale)
        parts.append(tag("text", text, class_="tick", x=left - 6, y=f"{y + 3.5:.1f}", text_anchor="end"))
    parts.append(tag("text", "size of the latents", class_="tick", x=right, y=height - 4, text_anchor="end"))
    for dot in dots:
        mark = marker(dot.series, across.place(dot.x), up.place(dot.y))
        parts.append(tag("a", tag("title", dot.words), mark, href=dot.anchor, aria_label=dot.words, tabindex="-1"))
    view = f"0 0 {_WIDTH:.0f} {height:.0f}"
    return tag("svg", parts, class_="chart", role="group", aria_label=words, viewBox=view)


def _size_tick(value: float) -> str:
    number, _, unit = size_text(value).partition(" ")
    return "0" if value == 0 else f"{float(number):g} {unit}"


_MARKS = (
    "M-4.2 0A4.2 4.2 0 1 0 4.2 0A4.2 4.2 0 1 0 -4.2 0Z",
    "M-4 -4H4V4H-4Z",
    "M0 -5.2L5.2 4H-5.2Z",
    "M0 -5.4L5.4 0L0 5.4L-5.4 0Z",
    "M-5.2 -4H5.2L0 5.2Z",
    "M-1.6 -5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
)


def marker(series: int, x: float = 0.0, y: float = 0.0) -> Html:
    """The mark of a series, with its own shape and colour."""
    index = series % len(_MARKS)
    return tag("path", class_=f"dot s{index}", d=_MARKS[index], transform=f"translate({x:.1f} {y:.1f})")
