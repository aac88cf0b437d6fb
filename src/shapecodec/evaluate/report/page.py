"""The page, put together."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from shapecodec.evaluate.report.cases import (
    PICTURES,
    SHOWN,
    Case,
    case_card,
    failed_section,
    shape_table,
    worst_first,
)
from shapecodec.evaluate.report.catalogue import Metric, headline_metrics, key_metrics
from shapecodec.evaluate.report.figures import distributions, legend
from shapecodec.evaluate.report.head import codec_name, definitions, masthead
from shapecodec.evaluate.report.html import Child, Html, render, script_json, tag
from shapecodec.evaluate.report.pictures import load_picture
from shapecodec.evaluate.report.run import Run, number, read_run
from shapecodec.evaluate.report.tables import (
    cost_table,
    group_table,
    metric_table,
    scale_of,
    tiles,
    unit_text,
)
from shapecodec.evaluate.report.views import Views, load_views
from shapecodec.io.atomic import atomic_file
from shapecodec.render.colours import STOPS

CASES = 60
VIEW_BYTES = 8_200_000  # base64 adds a third; with the pictures of 60 shapes the page stays below 15 MB
_SCRIPTS = ("table.js", "mesh.js", "scene.js", "viewer.js")


def write_report(run: Path, *, cases: int = CASES, view_bytes: int = VIEW_BYTES) -> Path:
    """Write RUN/report.html and return its path.

    Args:
        run: a folder with rows.parquet and aggregate.json, and in shapes/NAME/ the pictures and view meshes of each shape;
            a missing or damaged picture or view is said on the page, and nothing else.
        cases: shapes with pictures, the worst ones first; the table has them all.
        view_bytes: of all 3D views together. Each shape gets an equal share, for which its triangles are reduced, but none so
            few that the view says nothing: then the best shapes have none.

    Raises:
        BadFile: rows or averages are missing or malformed, or the page cannot be written.
    """
    stored = read_run(run)
    headline = headline_metrics(stored.metrics)
    chosen = worst_first(stored, headline, cases)
    names = [str(stored.rows[index]["name"]) for index in chosen]
    views = load_views([shape_folder(run, name) for name in names], view_bytes)
    found = [_case(run, index, name, view) for index, name, view in zip(chosen, names, views, strict=True)]
    path = run / "report.html"
    with atomic_file(path) as file:
        file.write(str(_page(stored, headline, found)).encode())
    return path


def shape_folder(run: Path, name: str) -> Path | None:
    """Where a shape's pictures lie; None for names that are no folder's, such as those that lead out of the run."""
    plain = name not in ("", ".", "..") and not set(name) & set("/\\\0")
    return run / "shapes" / name if plain else None


def _case(run: Path, index: int, name: str, view: Views) -> Case:
    folder = shape_folder(run, name)
    pictures = {key: load_picture(folder / f"{key}.png") if folder else "its name is no folder" for key in PICTURES}
    return Case(index, pictures, view.blobs, view.note, view.bar)


def _page(run: Run, headline: Sequence[Metric], cases: Sequence[Case]) -> Html:
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    early = _asset("theme.js")
    policy = "; ".join([
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'",
        f"script-src {' '.join(_digest(text) for text in (early, script))}",
    ])  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{codec_name(run)}: reconstruction report"),
        tag("style", Html(_asset("page.css"))),
        tag("script", Html(early)),
    )
    blobs = [
        tag("script", Html(text), type="application/octet-stream", id=f"view-{case.row}-{side}")
        for case in cases
        for side, text in case.views.items()
    ]
    body = tag(
        "body",
        tag("a", "Skip to the numbers", href="#overall", class_="skip"),
        masthead(run),
        *_sections(run, headline, cases),
        tag("footer", tag("p", "Written by shapecodec. This page is complete: it loads nothing from anywhere.")),
        Html(_asset("viewer.html")),
        tag("script", script_json(_data(run, headline, cases)), type="application/json", id="data"),
        *blobs,
        tag("script", Html(script)),
    )
    return render(Html("<!doctype html>\n"), tag("html", head, body, lang="en"))


def _asset(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _sections(run: Run, headline: Sequence[Metric], cases: Sequence[Case]) -> list[Html]:
    overall = run.select("all")
    parts: list[tuple[str, str, Child]] = [("overall", "Overall", _overall(run, headline))]
    for by, title in (("level", "By detail level"), ("category", "By category")):
        groups = run.select(by)
        if groups and overall:
            about = f"Above each strip: mean and {run.confidence}. Below it: floor and oracle. Strips of a column have one axis."
            table = group_table(run, groups, headline, title, title[3:].capitalize())
            parts.append((by, title, [tag("p", about, class_="about"), table]))
    parts.append(("distributions", "Distributions", distributions(run, headline)))
    parts.append(("worst", "Worst cases", _worst(run, headline, cases)))
    parts.append(("failed", f"Failed ({len(run.failed):,})", failed_section(run)))
    parts.append(("shapes", "All shapes", _shapes(run, headline, cases)))
    parts.append(("words", "Definitions", definitions(run)))
    links = [tag("a", title, href=f"#{key}") for key, title, _ in parts]
    toggle = tag("button", "Theme", type="button", id="theme", hidden=True)
    nav = tag("nav", tag("div", links, class_="links"), toggle, aria_label="Sections")
    sections = [tag("section", tag("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")
                for key, title, content in parts]  # fmt: skip
    return [nav, tag("main", sections)]


def _overall(run: Run, headline: Sequence[Metric]) -> Child:
    groups = run.select("all")
    if not groups or not run.metrics:
        return tag("p", "No shape was measured, so there are no averages.", class_="calm")
    every = metric_table(run, groups[0], run.metrics, "Every metric")
    cost = cost_table(run)
    return [
        legend(f"mean with {run.confidence}"),
        tiles(run, groups[0], headline),
        tag("h3", "By protocol"),
        metric_table(run, groups[0], key_metrics(run.metrics), "Overall"),
        tag("details", tag("summary", f"All {len(run.metrics):,} metrics"), every),
        [tag("h3", "Size and time"), cost] if cost else None,
    ]


def _worst(run: Run, headline: Sequence[Metric], cases: Sequence[Case]) -> Child:
    if not cases:
        return tag("p", "No shape was measured.", class_="calm")
    options = [tag("option", f"{metric.label} ({metric.protocol})", value=metric.column) for metric in headline]
    picker = tag("label", "Worst by ", tag("select", options, id="rank"), hidden=True) if options else None
    stops = ", ".join(f"rgb({' '.join(f'{c:.0f}' for c in stop)})" for stop in STOPS)
    bars = {case.bar for case in cases if case.bar}
    end = f"{bars.pop()} or more" if len(bars) == 1 else "see each picture"
    ramp = tag("i", class_="ramp", style=f"background:linear-gradient(90deg,{stops})")
    bar = tag("p", tag("span", "error 0"), ramp, tag("span", end), class_="legend")
    left = len(run.measured) - len(cases)
    rest = tag("p", f"{left:,} better shapes are in the table without pictures.", class_="about") if left else None
    more = tag("button", "Show more", type="button", id="more", hidden=True, data_shown=SHOWN)
    return [
        tag("div", picker, bar, class_="tools"),
        tag("div", [case_card(run, case, headline) for case in cases], id="cases"),
        more,
        rest,
    ]


def _shapes(run: Run, headline: Sequence[Metric], cases: Sequence[Case]) -> Child:
    def picker(key: str, title: str) -> Html:
        values = sorted({str(row.get(key) or "") for row in run.rows})
        options = [tag("option", value or "none given", value=f"={value}") for value in values]
        return tag("label", title, " ", tag("select", tag("option", "all", value=""), options, data_filter=key))

    field = tag("input", type="search", data_filter="name", placeholder="part of a name", spellcheck="false")
    search = tag("label", "Name ", field)
    pickers = [picker(key, key.capitalize()) for key in ("level", "category", "status")]
    counted = tag("output", f"{len(run.rows):,} shapes", id="counted", aria_live="polite")
    tools = tag("div", search, pickers, counted, class_="tools", id="filters", hidden=True)
    about = tag("p", "Below each value: floor and oracle.", class_="about")
    return [about, tools, shape_table(run, headline, [case.row for case in cases])]


def _data(run: Run, headline: Sequence[Metric], cases: Sequence[Case]) -> dict[str, Any]:
    """What the scripts read."""
    metrics = []
    for metric in headline:
        scale = scale_of(run, metric)
        metrics.append(
            {"column": metric.column, "label": metric.label, "unit": unit_text(metric, scale), "better": metric.better}
        )
    shapes = {}
    for case in cases:
        row = run.rows[case.row]
        values = [number(row, metric.column) for metric in headline]
        texts = [scale_of(run, metric).text(value) for metric, value in zip(headline, values, strict=True)]
        about = " · ".join(str(row[key]) for key in ("level", "category") if row.get(key))
        worse = [metric.badness(value) for metric, value in zip(headline, values, strict=True)]
        shapes[str(case.row)] = {
            "name": str(row["name"]), "about": about, "views": bool(case.views), "texts": texts,
            "badness": [None if bad is None or bad == float("inf") else bad for bad in worse],
        }  # fmt: skip
    return {
        "metrics": metrics,
        "shapes": shapes,
        "stops": [[round(c / 255, 4) for c in stop] for stop in STOPS.tolist()],
    }
