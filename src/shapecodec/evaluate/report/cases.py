"""The page's shapes: worst ones with their pictures, failed ones with their reasons, and all of them in one table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shapecodec.evaluate.report.catalogue import Metric
from shapecodec.evaluate.report.html import Child, Html, render, tag
from shapecodec.evaluate.report.numbers import MISSING, size_text
from shapecodec.evaluate.report.pictures import Picture
from shapecodec.evaluate.report.run import Row, Run, number, score_of
from shapecodec.evaluate.report.tables import direction, marks, scale_of, scroller, seconds_text, unit_text

PICTURES = {"original": "Original", "reconstruction": "Reconstruction", "error": "Error"}
STAGES = ("prepare", "encode", "decode", "extract")
SHOWN = 10  # cards before "Show more"


class Case(NamedTuple):
    """A shape with pictures.

    Args:
        row: its index in the rows.
        pictures: "original", "reconstruction", "error" -> the picture, or why there is none.
        views: "original", "reconstruction" -> base64 of the view mesh; both or none.
        note: why there is no 3D view, or empty.
        bar: what the last colour of the error picture stands for, or empty where nobody said.
    """

    row: int
    pictures: Mapping[str, Picture | str]
    views: Mapping[str, str]
    note: str
    bar: str


def worst_first(run: Run, metrics: Sequence[Metric], most: int) -> list[int]:
    """Rows of at most `most` measured shapes, by the first metric; where there are more, the worst of each metric in turn."""
    measured = [index for index, row in enumerate(run.rows) if row.get("status") == "ok"]
    orders = [sorted(measured, key=lambda index: _order(run.rows[index], metric)) for metric in metrics] or [measured]
    chosen: dict[int, None] = {}
    for place in range(len(measured)):
        for order in orders:
            if len(chosen) < most:
                chosen[order[place]] = None
    return sorted(chosen, key=orders[0].index)


def _order(row: Row, metric: Metric) -> tuple[bool, float]:
    badness = metric.badness(number(row, metric.column))
    return badness is None, -(badness or 0.0)


def case_card(run: Run, case: Case, metrics: Sequence[Metric]) -> Html:
    """An article: what it is, three pictures, its numbers, and the way into the 3D view."""
    row = run.rows[case.row]
    facts = [row.get("level") or None, row.get("category") or None, *cost_facts(row)]
    reason = row.get("reason")
    head = tag(
        "header",
        tag("h3", tag("span", class_="rank", aria_hidden="true"), row["name"]),
        tag("p", " · ".join(str(fact) for fact in facts if fact), class_="meta"),
        tag("p", str(reason), class_="note") if reason else None,
    )
    if case.views:
        opener = tag("button", "Open in 3D", class_="open", type="button", data_shape=case.row,
                     aria_label=f"Open {row['name']} in 3D")  # fmt: skip
    else:
        opener = tag("p", case.note, class_="note")
    pictures = tag("div", [_figure(case, key, row["name"]) for key in PICTURES], class_="pictures")
    looks = tag("div", pictures, opener, class_="looks")
    return tag(
        "article", head, looks, _scores(run, row, metrics), class_="case", id=f"shape-{case.row}", data_shape=case.row
    )


def cost_facts(row: Row) -> list[str]:
    """Tokens, size and time of a shape, as far as they are known."""
    tokens, size, time = number(row, "tokens"), number(row, "bytes"), codec_seconds(row)
    return [
        *([] if tokens is None else [f"{tokens:,.0f} tokens"]),
        *([] if size is None else [size_text(size)]),
        *([] if time is None else [seconds_text(time)]),
    ]


def codec_seconds(row: Row) -> float | None:
    """Seconds of the codec alone: not those of reading, measuring and drawing."""
    spent = [value for stage in STAGES if (value := number(row, f"seconds.{stage}")) is not None]
    return sum(spent) if spent else None


def _figure(case: Case, key: str, name: str) -> Html:
    picture = case.pictures[key]
    label = PICTURES[key]
    caption = [label, tag("span", f" 0 to {case.bar}", class_="unit") if key == "error" and case.bar else None]
    if isinstance(picture, str):
        shown = tag("p", f"No picture: {picture}.", class_="missing")
    else:
        shown = tag("img", src=picture.uri, alt=f"{label} of {name}", width=picture.width, height=picture.height,
                    decoding="async")  # fmt: skip
    return tag("figure", shown, tag("figcaption", caption), class_=key)


def _scores(run: Run, row: Row, metrics: Sequence[Metric]) -> Html:
    head = [tag("th", name, scope="col", class_=name.lower() or None) for name in ("", "Value", "Floor", "Oracle")]
    body = []
    for metric in metrics:
        scale, score = scale_of(run, metric), score_of(row, metric)
        unit = unit_text(metric, scale)
        under = tag("span", unit, class_="unit") if unit else None
        body.append(
            tag(
                "tr",
                tag("th", metric.label, direction(metric), under, scope="row"),
                tag("td", scale.html(score.mean), class_="number value"),
                tag("td", scale.html(score.floor), class_="number floor"),
                tag("td", scale.html(score.oracle), class_="number oracle"),
                data_column=metric.column,
            )
        )
    return tag("table", tag("thead", tag("tr", head)), tag("tbody", body), class_="scores")


def failed_section(run: Run) -> Child:
    """How many shapes failed, of what, and each with its reason."""
    if not run.failed:
        return tag("p", "No shape failed.", class_="calm")
    kinds = Counter(_kind(row) for row in run.failed)
    summary = [tag("li", tag("b", f"{count:,}"), " ", kind) for kind, count in kinds.most_common()]
    head = tag("tr", [tag("th", name, scope="col") for name in ("Shape", "Level", "Category", "Status", "Reason")])
    body = [
        tag(
            "tr",
            tag("th", breakable(str(row["name"])), scope="row", title=row.get("file") or None),
            [tag("td", str(row.get(key) or MISSING)) for key in ("level", "category", "status")],
            tag("td", str(row.get("reason") or "no reason was stored"), class_="reason"),
            data_failed=True,
        )
        for row in run.failed
    ]
    noun = "shape" if len(run.failed) == 1 else "shapes"
    words = f"{len(run.failed):,} of {len(run.rows):,} {noun} failed. They are counted, and in no average."
    caption = "Failed shapes"
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", head), tag("tbody", body))
    return [tag("p", words), tag("ul", summary, class_="kinds"), scroller(caption, table, class_="failures")]


def _kind(row: Row) -> str:
    """What stands before the first colon of a reason, such as the class of an error; else the status."""
    head, colon, _ = str(row.get("reason") or "").partition(":")
    return head if colon and head and " " not in head else str(row.get("status"))


def shape_table(run: Run, metrics: Sequence[Metric], cards: Sequence[int]) -> Html:
    """Every row, failed ones too; script makes it sortable and filterable."""
    names = [("Shape", None), ("Level", None), ("Category", None), ("Status", None)]
    head = [_sorter(name, class_) for name, class_ in names]
    for metric in metrics:
        head.append(_sorter(metric.label, "number", metric, unit_text(metric, scale_of(run, metric))))
    head += [_sorter(name, "number") for name in ("Tokens", "Size", "Codec time")]
    linked = set(cards)
    body = [_shape_row(run, index, row, metrics, index in linked) for index, row in enumerate(run.rows)]
    table = tag(
        "table", tag("caption", "All shapes", class_="hidden"), tag("thead", tag("tr", head)), tag("tbody", body)
    )
    return scroller("All shapes", table, class_="shapes")


def breakable(name: str) -> Html:
    """A name that may be broken after its underscores, dots and slashes."""
    return render(*(child for piece in re.findall(r"[^_./]*[_./]*", name) if piece for child in (piece, tag("wbr"))))


def _sorter(name: str, class_: str | None, metric: Metric | None = None, unit: str = "") -> Html:
    arrow = direction(metric) if metric else None
    button = tag("button", name, arrow, tag("span", class_="sorted", aria_hidden="true"), type="button", class_="sort")
    under = tag("span", unit or "\N{NO-BREAK SPACE}", class_="unit") if metric else None
    return tag("th", button, under, scope="col", class_=class_, title=metric.column if metric else None)


def _shape_row(run: Run, index: int, row: Row, metrics: Sequence[Metric], linked: bool) -> Html:
    words = breakable(str(row["name"]))
    name = tag("a", words, href=f"#shape-{index}") if linked else words
    status = str(row.get("status"))
    texts = [str(row.get(key) or "") for key in ("level", "category")]
    cells = [tag("th", name, scope="row"), *(tag("td", text or MISSING, data_sort=text) for text in texts)]
    cells.append(tag("td", tag("span", status, class_=f"status {'ok' if status == 'ok' else 'bad'}"), data_sort=status))
    for metric in metrics:
        scale, score = scale_of(run, metric), score_of(row, metric)
        sort = "" if score.mean is None else repr(score.mean)
        cells.append(tag("td", scale.html(score.mean, "value"), marks(score, scale) if score.mean is not None else None,
                         class_="number", data_sort=sort))  # fmt: skip
    tokens, size, time = number(row, "tokens"), number(row, "bytes"), codec_seconds(row)
    shown = [
        (MISSING if tokens is None else f"{tokens:,.0f}", tokens),
        (size_text(size), size),
        (MISSING if time is None else seconds_text(time), time),
    ]
    cells += [tag("td", text, class_="number", data_sort="" if value is None else repr(value)) for text, value in shown]
    return tag("tr", cells, data_level=texts[0], data_category=texts[1], data_status=status, data_name=str(row["name"]))
