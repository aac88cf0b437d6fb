"""The page's tables of averages: each number with its interval, its floor and its oracle, and a strip that shows all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shapecodec.evaluate.report.catalogue import Metric
from shapecodec.evaluate.report.charts import Axis, strip, strip_axis
from shapecodec.evaluate.report.html import Child, Html, render, tag
from shapecodec.evaluate.report.numbers import MISSING, Scale, size_text
from shapecodec.evaluate.report.run import Group, Run, Score, number, score_of

NOTHING = Score(None)
_FEW = 10  # shapes below which a bootstrap interval is known to be too narrow


def scale_of(run: Run, metric: Metric) -> Scale:
    """One scale for all numbers of a metric on the page."""
    return Scale.of([number(row, metric.column) for row in run.measured])


def most_of(metric: Metric) -> float | None:
    """The largest value that a metric can have, if it is a score."""
    return 1.0 if metric.better == "high" else None


def unit_text(metric: Metric, scale: Scale) -> str:
    """What a printed number is to be read in, such as "× 10⁻³ lengths"."""
    return " ".join(word for word in (scale.factor(), metric.unit) if word)


def interval_text(score: Score, scale: Scale) -> Html:
    """The ends of the confidence interval."""
    if score.low is None or score.high is None:
        return tag("span", MISSING)
    return render(scale.html(score.low), " to ", scale.html(score.high))


def direction(metric: Metric) -> Html | None:
    """An arrow that says which direction is the good one."""
    words = {"low": ("\N{DOWNWARDS ARROW}", "lower is better"), "high": ("\N{UPWARDS ARROW}", "higher is better"),
             "one": ("\N{RIGHTWARDS ARROW}1", "near 1 is better"), "": None}[metric.better]  # fmt: skip
    if words is None:
        return None
    arrow = tag("span", words[0], class_="better", title=words[1], aria_label=words[1], role="img")
    return render("\N{NO-BREAK SPACE}", arrow)


def strip_words(metric: Metric, score: Score, scale: Scale) -> str:
    """A strip in words."""
    ends = f", interval {scale.text(score.low)} to {scale.text(score.high)}" if score.low is not None else ""
    return (
        f"{metric.label}: {scale.text(score.mean)}{ends}, floor {scale.text(score.floor)}, "
        f"oracle {scale.text(score.oracle)} {unit_text(metric, scale)}".strip()
    )


def scroller(label: str, *children: Child, class_: str = "") -> Html:
    """A box that scrolls sideways on a narrow page, also from the keyboard."""
    return tag("div", *children, class_=f"scroll {class_}".strip(), tabindex=0, role="region", aria_label=label)


def tiles(run: Run, group: Group, metrics: Sequence[Metric]) -> Html:
    """The headline numbers, large."""
    found = []
    for metric in metrics:
        score, scale = group.metrics.get(metric.column, NOTHING), scale_of(run, metric)
        axis = strip_axis([score], most=most_of(metric))
        found.append(
            tag(
                "li",
                tag("h3", metric.label, direction(metric)),
                tag("p", scale.html(score.mean, "big"), " ", tag("span", unit_text(metric, scale), class_="unit")),
                strip(score, axis, strip_words(metric, score, scale)) if axis else None,
                tag(
                    "dl",
                    _pair(run.confidence, interval_text(score, scale)),
                    _pair("Floor", scale.html(score.floor), "floor"),
                    _pair("Oracle", scale.html(score.oracle), "oracle"),
                ),
                tag("p", metric.protocol, part_text(group, score, " \N{MIDDLE DOT} "), class_="protocol"),
                class_="tile",
            )
        )
    return tag("ul", found, _size_tile(run), class_="tiles")


def part_text(group: Group, score: Score, before: str) -> str | None:
    """Of how many shapes a mean is, where that is not all that were measured."""
    measured = group.shapes - group.failed
    if score.count is None or score.count == measured:
        return None
    return f"{before}{score.count:,} of {measured:,} shapes"


def _size_tile(run: Run) -> Html | None:
    sizes, tokens = known_values(run, "bytes"), known_values(run, "tokens")
    if not sizes:
        return None
    mean = sum(sizes) / len(sizes)
    facts = [
        _pair("Median", tag("span", size_text(quantile(sizes, 0.5)))),
        _pair("Largest", tag("span", size_text(sizes[-1]))),
    ]
    if tokens:
        facts.append(_pair("Tokens", tag("span", f"{sum(tokens) / len(tokens):,.0f}")))
    count, _, unit = size_text(mean).partition(" ")
    shown = tag(
        "p",
        tag("data", count, value=repr(mean), class_="big"),
        " ",
        tag("span", f"{unit}, mean of a shape", class_="unit"),
    )
    return tag("li", tag("h3", "Size of the latents"), shown, tag("dl", facts), class_="tile")


def known_values(run: Run, column: str) -> list[float]:
    """What measured shapes have in a column, sorted; times without each process's first shape, which compiles kernels."""
    warm = [row for row in run.measured if row.get("warm")] if column.startswith("seconds.") else []
    return sorted(value for row in warm or run.measured if (value := number(row, column)) is not None)


def _pair(name: str, value: Html, class_: str | None = None) -> Html:
    return tag("div", tag("dt", name), tag("dd", value), class_=class_)


def metric_table(run: Run, group: Group, metrics: Sequence[Metric], caption: str) -> Html:
    """A row a metric: mean, interval, floor, oracle, strip; one body a protocol."""
    heads = (("Metric", None), ("Mean", "number"), (run.confidence, "number"),
             ("Floor", "number floor"), ("Oracle", "number oracle"))  # fmt: skip
    head = tag("tr", [tag("th", name, scope="col", class_=class_) for name, class_ in heads],
               tag("th", tag("span", "Picture of the numbers", class_="hidden"), scope="col", class_="graphic"))  # fmt: skip
    bodies = []
    for protocol in dict.fromkeys(metric.protocol for metric in metrics):
        rows = [_metric_row(run, group, metric) for metric in metrics if metric.protocol == protocol]
        name = tag("tr", tag("th", protocol, colspan=6, scope="rowgroup"), class_="band")
        bodies.append(tag("tbody", name, rows))
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", head), bodies, class_="metrics")
    return scroller(caption, table)


def _metric_row(run: Run, group: Group, metric: Metric) -> Html:
    score, scale = group.metrics.get(metric.column, NOTHING), scale_of(run, metric)
    axis, unit = strip_axis([score], most=most_of(metric)), unit_text(metric, scale)
    part = part_text(group, score, ", " if unit else "")
    note = tag("span", unit, part, class_="unit") if unit or part else None
    return tag(
        "tr",
        tag("th", metric.label, direction(metric), " ", note, scope="row", title=metric.column),
        tag("td", scale.html(score.mean), class_="number value"),
        tag("td", interval_text(score, scale), class_="number ci"),
        tag("td", scale.html(score.floor), class_="number floor"),
        tag("td", scale.html(score.oracle), class_="number oracle"),
        tag("td", strip(score, axis, strip_words(metric, score, scale)) if axis else None, class_="graphic"),
    )


def group_table(run: Run, groups: Sequence[Group], metrics: Sequence[Metric], caption: str, name: str) -> Html:
    """A row a group, a column a metric: value, interval, floor and oracle in one cell, on one axis a column."""
    overall = run.select("all")[:1]
    rows = [*overall, *groups]
    head = [tag("th", name, scope="col"), tag("th", "Shapes", scope="col", class_="number")]
    columns = []
    for metric in metrics:
        scale = scale_of(run, metric)
        axis = strip_axis([group.metrics.get(metric.column, NOTHING) for group in rows], most=most_of(metric))
        unit = tag("span", unit_text(metric, scale) or "\N{NO-BREAK SPACE}", class_="unit")
        head.append(tag("th", metric.label, direction(metric), unit, scope="col", title=metric.column))
        columns.append((metric, scale, axis))
    body = [_group_row(group, columns) for group in rows]
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", tag("tr", head)), tag("tbody", body))
    return scroller(caption, table, class_="groups")


def _group_row(group: Group, columns: Sequence[tuple[Metric, Scale, Axis | None]]) -> Html:
    cells = [tag("th", "All" if group.by == "all" else group.key, scope="row"), _count(group)]
    few = "ci few" if group.shapes - group.failed < _FEW else "ci"
    scores = [group.metrics.get(metric.column, NOTHING) for metric, _, _ in columns]
    if all(score.mean is None for score in scores):
        cells.append(tag("td", "nothing was measured", colspan=len(columns), class_="calm"))
        scores = []
    for score, (metric, scale, axis) in zip(scores, columns, strict=False):
        drawn = strip(score, axis, strip_words(metric, score, scale)) if axis and score.mean is not None else None
        interval = None if score.low is None else tag("span", interval_text(score, scale), class_=few)
        cells.append(tag("td", scale.html(score.mean, "value"), interval, drawn, marks(score, scale)))
    return tag("tr", cells, class_="overall" if group.by == "all" else None)


def marks(score: Score, scale: Scale) -> Html:
    """Floor and oracle, small, below a value."""
    floor, oracle = (scale.html(value) for value in (score.floor, score.oracle))
    return tag("span", tag("span", floor, class_="floor"), " ", tag("span", oracle, class_="oracle"), class_="marks")


def _count(group: Group) -> Html:
    failed = tag("span", f"{group.failed} failed", class_="failed") if group.failed else None
    return tag(
        "td",
        tag("data", f"{group.shapes - group.failed:,}", value=group.shapes - group.failed),
        failed,
        class_="number",
    )


def cost_table(run: Run) -> Html | None:
    """Tokens, bytes and seconds a shape: mean, median, 95th percentile and largest."""
    stages = [column for column in dict.fromkeys(c for row in run.rows for c in row) if column.startswith("seconds.")]
    rows = []
    for label, column in [("Tokens", "tokens"), ("Size", "bytes"), *((_stage(column), column) for column in stages)]:
        values = known_values(run, column)
        if values:
            cells = (sum(values) / len(values), quantile(values, 0.5), quantile(values, 0.95), values[-1])
            texts = [
                tag("td", tag("data", _cost(column, value), value=repr(value)), class_="number") for value in cells
            ]
            rows.append(tag("tr", tag("th", label, scope="row"), texts))
    if not rows:
        return None
    head = [tag("th", name, scope="col") for name in ("A shape", "Mean", "Median", "95th percentile", "Largest")]
    caption = "Size and time"
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", tag("tr", head)), tag("tbody", rows))
    return scroller(caption, table, class_="cost")


def _stage(column: str) -> str:
    return "Time, " + column.removeprefix("seconds.").replace("_", " ")


def _cost(column: str, value: float) -> str:
    if column == "bytes":
        return size_text(value)
    return f"{value:,.0f}" if column == "tokens" else seconds_text(value)


def seconds_text(value: float) -> str:
    """Seconds with three digits; milliseconds below a tenth."""
    if value < 0.1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} s"


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of sorted values, interpolated."""
    place = share * (len(values) - 1)
    below = int(place)
    return values[below] + (place - below) * (values[min(below + 1, len(values) - 1)] - values[below])


def series_of(run: Run, metric: Metric) -> tuple[list[float], list[float], list[float]]:
    """Values, floors and oracles of the measured shapes that have a value."""
    scores = [score_of(row, metric) for row in run.measured]

    def known(values: Iterable[float | None]) -> list[float]:
        return [value for value in values if value is not None]

    return known(s.mean for s in scores), known(s.floor for s in scores), known(s.oracle for s in scores)
