"""The page's figures: a distribution a metric, and what the size of the latents buys."""

from __future__ import annotations

from collections.abc import Sequence

from shapecodec.evaluate.report.catalogue import Metric
from shapecodec.evaluate.report.charts import Dot, distribution, floors_fit, marker, scatter
from shapecodec.evaluate.report.html import Child, Html, tag
from shapecodec.evaluate.report.numbers import size_text
from shapecodec.evaluate.report.run import Run, number
from shapecodec.evaluate.report.tables import most_of, quantile, scale_of, series_of, unit_text


def legend(value: str, class_: str = "legend") -> Html:
    """What the marks of strips and curves are."""
    entries = (("value", value), ("oracle", "oracle"), ("floor", "floor"))
    return tag("p", [tag("span", tag("i", class_=f"key {name}"), text) for name, text in entries], class_=class_)


def distributions(run: Run, headline: Sequence[Metric]) -> Child:
    """A figure a metric, and one of size against the first of them."""
    cards = [card for metric in headline if (card := _distribution(run, metric)) is not None]
    if not cards:
        return tag("p", "No shape was measured.", class_="calm")
    about = (
        "Above: shapes in each bin. Below: the share of shapes with at most this value, for codec, oracle and floor."
    )
    rate = _rate(run, headline[0])
    return [tag("p", about, class_="about"), legend("codec", "legend curves"), tag("div", cards, rate, class_="charts")]


def _distribution(run: Run, metric: Metric) -> Html | None:
    values, floors, oracles = series_of(run, metric)
    if not values:
        return None
    scale, ordered = scale_of(run, metric), sorted(values)
    share = 0.05 if metric.better == "high" else 0.95
    facts = f"median {scale.text(quantile(ordered, 0.5))}, {100 * share:.0f}th percentile {scale.text(quantile(ordered, share))}"
    if floors and not floors_fit(values, floors, oracles):
        least, largest = scale.text(min(floors)), scale.text(max(floors))
        facts += f"; floor {largest}" if least == largest else f"; floor {least} to {largest}"
    words = f"{metric.label}, {len(values)} shapes: {facts}"
    chart = distribution(values, floors, oracles, scale, words, most_of(metric))
    return tag(
        "figure",
        _caption(metric.label, unit_text(metric, scale), metric.protocol),
        chart,
        tag("p", facts),
        class_="card",
    )


def _caption(title: str, *notes: str) -> Html:
    return tag("figcaption", tag("b", title), tag("span", " · ".join(note for note in notes if note), class_="unit"))


def _rate(run: Run, metric: Metric) -> Html | None:
    """Bytes against a metric, a mark a shape, a series a detail level."""
    levels = sorted({str(row.get("level") or "") for row in run.measured})
    scale, dots = scale_of(run, metric), []
    for index, row in enumerate(run.rows):
        size, value = number(row, "bytes"), number(row, metric.column)
        if row.get("status") == "ok" and size is not None and value is not None:
            words = f"{row['name']}: {size_text(size)}, {scale.text(value)} {unit_text(metric, scale)}"
            series = levels.index(str(row.get("level") or "")) if len(levels) <= 6 else 0
            dots.append(Dot(size, value, series, words, f"#shape-{index}"))
    if len(dots) < 2:
        return None
    keys = [tag("span", tag("svg", marker(k, 8, 8), width=16, height=16, aria_hidden="true"), level or "no level")
            for k, level in enumerate(levels)]  # fmt: skip
    words = f"Size of the latents against {metric.label}, {len(dots)} shapes"
    chart = scatter(dots, scale, words, most_of(metric))
    caption = _caption("Size and error", f"{metric.label}, {unit_text(metric, scale)}")
    return tag(
        "figure", caption, chart, tag("p", keys if 1 < len(levels) <= 6 else None, class_="legend"), class_="card"
    )
