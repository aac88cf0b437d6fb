"""The page's beginning and end: what was measured, how and where; and what every word on the page means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shapecodec.evaluate.protocol import Frame
from shapecodec.evaluate.report.html import Child, Html, tag
from shapecodec.evaluate.report.run import Run

_FACTS = (  # heading -> key of the settings
    ("Weights", "codec_hash"),
    ("Resolution", "resolution"),
    ("Surface", "surface"),
    ("Latent bits", "bits"),
    ("Data", "data"),
    ("Split", "split"),
    ("Alignment", "align"),
    ("Date", "date"),
    ("Seed", "seed"),
    ("Hardware", "hardware"),
    ("Version", "version"),
)
_LONG = 34  # characters of a fact that takes two places of the grid

WORDS = (
    ("Mean and interval", "The mean over the shapes that did not fail, and where the mean over all such shapes lies with the "
     "stated confidence. With fewer than ten shapes such intervals are too narrow; they are in italics."),
    ("Floor", "What the original scores against itself, sampled again: the score of a perfect reconstruction. Exact distances "
     "have a floor of zero; counts have the original's own. Differences of a sampled floor's size mean little."),
    ("Oracle", "The exact field, without any network, through the same extraction. What lies between value and oracle is the "
     "network's error; what lies between oracle and floor belongs to the voxel grid and the extraction."),
    ("Reconstruction to input", "Distances from points on the reconstruction to the input: they see what was added (accuracy)."),
    ("Input to reconstruction", "Distances from points on the input to the reconstruction: they see what was lost (completeness)."),
    ("Exact and sampled", "Exact distances go to the other mesh's triangles; sampled ones to the nearest of its points, and "
     "therefore have a floor."),
    ("Voxels and lengths", "A voxel is one cell of the codec's grid; lengths are units of the protocol's frame."),
    ("3D views", "Simplified for this page; the numbers belong to the full meshes. A vertex of a view has the mean error of the "
     "vertices that it stands for."),
)  # fmt: skip


def masthead(run: Run) -> Html:
    """Title and facts."""
    resolution = run.settings.get("resolution") or _first(run, "resolution")
    title = [codec_name(run), tag("span", f" at {resolution} voxels an axis", class_="at") if resolution else None]
    counted = f"{len(run.measured):,} of {len(run.rows):,} shapes measured"
    counted += f", {len(run.failed):,} failed." if run.failed else ", none failed."
    whole = run.settings.get("shapes")
    if isinstance(whole, int) and whole > len(run.rows):
        counted += f" The data holds {whole:,}; these are a random part of it."
    facts = [
        tag("div", tag("dt", name), tag("dd", text), class_="long" if len(text) > _LONG else None)
        for name, text in _facts(run)
    ]
    return tag(
        "header",
        tag("p", "Reconstruction report", class_="kicker"),
        tag("h1", title),
        tag("p", counted, class_="lede"),
        tag("dl", facts, class_="facts"),
        class_="masthead",
    )


def codec_name(run: Run) -> str:
    """The codec, or what stands for it."""
    return str(run.settings.get("codec") or _first(run, "codec") or "unnamed codec")


def _first(run: Run, column: str) -> Any:
    return next((row[column] for row in run.rows if row.get(column)), None)


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """(heading, text) of what a reader asks first."""
    yield "Codec", codec_name(run)
    for protocol in run.protocols:
        yield f"Protocol {protocol['name']}", _protocol_fact(protocol, run.settings.get("points"))
    for name, key in _FACTS:
        value = run.settings.get(key)
        if name == "Resolution":
            value = value or _first(run, key)
        if value not in (None, "", {}, []):
            yield name, plain(value)


def _protocol_fact(protocol: Mapping[str, Any], points: Any) -> str:
    """Points and frame of a protocol, or its views; its digest where it has neither."""
    count = points if isinstance(points, int) else protocol.get("points")
    words = [f"{count:,} points a mesh"] if isinstance(count, int) and "points" in protocol else []
    frame, views = protocol.get("frame"), protocol.get("views")
    if isinstance(frame, Mapping) and frame.get("kind") in ("box", "sphere"):
        words.append(Frame(frame["kind"], float(frame["size"])).in_words())
    if isinstance(views, Mapping):
        words.append(f"{plain(views.get('count'))} views of {plain(views.get('resolution'))} pixels an axis")
    return "; ".join(words) or f"digest {plain(protocol.get('digest'))}"


def plain(value: Any) -> str:
    """A stored setting as text for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(entry)}".replace("_", " ") for key, entry in value.items() if entry is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def definitions(run: Run) -> Child:
    """What the words mean, each protocol with all that defines it, and the settings."""
    words = tag("dl", [[tag("dt", word), tag("dd", text)] for word, text in WORDS], class_="words")
    protocols = [
        tag("details", tag("summary", tag("b", protocol["name"]), " in full"), _entries(_flat(protocol)))
        for protocol in run.protocols
    ]
    settings = tag("details", tag("summary", tag("b", "Settings"), " of this run"), _entries(run.settings))
    return [words, protocols, settings]


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol without its name, the definitions in place of their heading."""
    numbers = {key: value for key, value in protocol.items() if key not in ("name", "definitions")}
    definitions = protocol.get("definitions")
    return {**numbers, **(definitions if isinstance(definitions, Mapping) else {})}


def _entries(mapping: Mapping[str, Any]) -> Html:
    items: list[Html] = []
    for key, value in mapping.items():
        nested = isinstance(value, Mapping) and bool(value)
        shown = _entries(value) if nested else "none" if value is None else plain(value)
        items += [tag("dt", str(key).replace("_", " ")), tag("dd", shown)]
    return tag("dl", items, class_="entries")
