"""Pages that fetch, that run what a name says, that hide a failure or print another number than was measured."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import FAILED, RESOLUTION, SETTINGS, shapes, write_run

from shapecodec.errors import BadFile
from shapecodec.evaluate.report import write_report
from shapecodec.evaluate.report.cases import worst_first
from shapecodec.evaluate.report.catalogue import headline_metrics
from shapecodec.evaluate.report.html import render, script_json, tag
from shapecodec.evaluate.report.pictures import load_picture
from shapecodec.evaluate.report.run import number, read_run
from shapecodec.evaluate.report.view_mesh import decode_view_mesh

VOID = {"meta", "img", "input", "br", "hr", "wbr"}


class Page(HTMLParser):
    """Elements of a page: (tag, attributes, text inside), with their ancestors' ids and classes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = text
        self.elements: list[dict] = []
        self.open: list[dict] = []
        self.feed(text)
        assert self.open == [], "elements that are never closed"

    def handle_starttag(self, name, attributes):
        element = {"tag": name, "text": "", "up": list(self.open), "below": [], **dict(attributes)}
        self.elements.append(element)
        for outer in self.open:
            outer["below"].append(element)
        if name not in VOID:
            self.open.append(element)

    def handle_endtag(self, name):
        assert self.open[-1]["tag"] == name, f"</{name}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, name: str, **wanted: str) -> list[dict]:
        keys = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}
        return [e for e in self.elements if e["tag"] == name and all(e.get(k) == v for k, v in keys.items())]

    def inside(self, outer: dict, name: str) -> list[dict]:
        return [element for element in outer["below"] if element["tag"] == name]


def page_of(run: Path, **options) -> Page:
    path = write_report(run, **options)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run) -> Page:
    return page_of(run)


def test_page_that_needs_a_network(page):
    assert not re.search(
        r"(?:https?:)?//[a-z0-9]", re.sub(r"base64,[^\"]*|<script type=\"application[^<]*", "", page.text)
    )
    assert "@import" not in page.text and "url(" not in page.text
    assert page.find("link") == [] and page.find("iframe") == []
    for element in page.elements:
        assert element.get("src", "data:image/webp;base64,").startswith("data:image/webp;base64,")
        assert element.get("href", "#").startswith("#")
    anchors = {element["id"] for element in page.elements if "id" in element}
    assert {element["href"][1:] for element in page.elements if "href" in element} <= anchors


def test_script_that_the_policy_would_not_run(page):
    (policy,) = (e["content"] for e in page.find("meta") if e.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    scripts = [element["text"] for element in page.find("script") if "type" not in element]
    assert len(scripts) == 2
    for text in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\'"\x00\ud800'


def test_name_that_is_a_script(tmp_path, page):
    harmless = NASTY.replace("\ud800", "")
    rows = [{**shapes()[0][3], "name": harmless, "category": harmless, "level": harmless, "reason": harmless}]
    rows.append({**FAILED[0], "name": f"{harmless}2", "reason": harmless, "file": harmless})
    settings = {**SETTINGS, "codec": harmless, "data": harmless, "hardware": {harmless: [harmless]}}
    nasty = page_of(write_run(tmp_path / "run", rows, pictures=False, settings=settings))
    expected = [e for e in page.find("script") if not e.get("id", "").startswith("view-")]
    assert len(nasty.find("script")) == len(expected)
    assert nasty.find("img") == []
    assert [key for e in nasty.elements for key in e if key.startswith("on")] == []
    data = json.loads(nasty.find("script", id="data")[0]["text"])
    assert data["shapes"]["0"]["name"] == harmless  # the script sets it as text
    seen = harmless.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert sum(seen in e["text"] for e in nasty.find("h3")) == 1
    assert nasty.find("title")[0]["text"].startswith(seen)


@pytest.mark.parametrize("text", [NASTY, "]]>", "<!--", "\u2028", "plain"])
def test_text_that_is_taken_for_html(text):
    inner = Page(tag("p", text, render(text), title=text, data_x=text))
    (only,) = inner.elements
    expected = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").replace("\ud800", "?")
    assert only["text"] == 2 * expected and only["title"] == expected == only["data-x"]
    script = script_json({text: [text]})
    assert "<" not in script and json.loads(script) == {text: [text]}


def test_number_that_was_not_measured(run, page):
    """Every number of the table of shapes, of the cards and of the averages is the stored one."""
    stored = read_run(run)
    headline = headline_metrics(stored.metrics)
    assert len(headline) >= 6
    table = next(e for e in page.find("table") if "shapes" in e["up"][-1]["class"])
    lines = {e["data-name"]: e for e in page.inside(table, "tr") if "data-name" in e}
    assert set(lines) == {row["name"] for row in stored.rows}
    for row in stored.rows:
        values = [float(e["value"]) for e in page.inside(lines[row["name"]], "data")]
        columns = [f"{kind}{m.column}" for m in headline for kind in ("", "floor.", "oracle.")]
        assert values == ([] if row["status"] != "ok" else [number(row, c) for c in columns if row[c] is not None])
    for index, row in enumerate(stored.rows):
        for card in page.find("article", id=f"shape-{index}"):
            for line in (e for e in page.inside(card, "tr") if "data-column" in e):
                column = line["data-column"]
                wanted = [row[column], row[f"floor.{column}"], row[f"oracle.{column}"]]
                assert [float(e["value"]) for e in page.inside(line, "data")] == [v for v in wanted if v is not None]


def test_average_that_was_not_computed(run, page):
    aggregate = json.loads((run / "aggregate.json").read_text())
    everything = aggregate["groups"][0]["metrics"]
    rows = [e for e in page.find("tr") if page.inside(e, "th") and page.inside(e, "th")[0].get("title") in everything]
    assert len({page.inside(row, "th")[0]["title"] for row in rows}) == len(read_run(run).metrics)
    for row in rows:
        score = everything[page.inside(row, "th")[0]["title"]]
        wanted = [score[key] for key in ("mean", "low", "high", "floor", "oracle") if score[key] is not None]
        assert [float(e["value"]) for e in page.inside(row, "data")] == wanted
    for by in ("level", "category"):
        section = page.find("section", id=by)[0]
        groups = [g for g in aggregate["groups"] if g["by"] in ("all", by)]
        lines = [e for e in page.inside(section, "tr") if "thead" not in [up["tag"] for up in e["up"]]]
        headline = headline_metrics(read_run(run).metrics)
        for group, line in zip(groups, lines, strict=True):
            numbers = [float(e["value"]) for e in page.inside(line, "data")]
            scores = [group["metrics"][m.column] for m in headline]
            wanted = [
                s[key] for s in scores for key in ("mean", "low", "high", "floor", "oracle") if s[key] is not None
            ]
            assert numbers == [group["shapes"] - group["failed"], *wanted]


def test_mean_of_some_shapes_passed_off_as_one_of_all(tmp_path):
    column = "exact-v1.exact.accuracy_voxels.mean"
    rows = [{**row, column: None if index else row[column]} for index, (_, _, _, row) in enumerate(shapes())]
    page = page_of(write_run(tmp_path / "run", rows, pictures=False))
    heads = [e for e in page.find("th", title=column) if e["up"][-1]["tag"] == "tr" and e.get("scope") == "row"]
    assert len(heads) == 2 and all("1 of 3 shapes" in e["text"] for e in heads)
    assert "1 of 3 shapes" in page.find("li", class_="tile")[0]["text"]


def test_printed_number_is_rounded_from_its_value(page):
    for element in page.find("data"):
        shown, _, _ = element["text"].replace(",", "").replace("\N{MINUS SIGN}", "-").partition(" ")
        decimals = len(shown.partition(".")[2])
        ratio = float(element["value"]) / float(shown) if float(shown) else 1.0
        power = round(np.log10(ratio) / 3) * 3 if ratio > 0 else 0
        assert abs(float(element["value"]) / 10.0**power - float(shown)) <= 0.5001 * 10.0**-decimals, element


def test_table_without_a_floor_or_an_oracle(page):
    for table in page.find("table", class_="metrics"):
        heads = [e["text"] for e in page.inside(table, "th") if e.get("scope") == "col"]
        assert [head for head in heads if head in ("Mean", "95% CI", "Floor", "Oracle")] == [
            "Mean",
            "95% CI",
            "Floor",
            "Oracle",
        ]
    strips = [e for e in page.find("svg") if e.get("class") == "strip"]
    assert strips and all("floor" in e["aria-label"] and "oracle" in e["aria-label"] for e in strips)
    for tile in page.find("li", class_="tile")[:-1]:
        assert [e["text"] for e in page.inside(tile, "dt")] == ["95% CI", "Floor", "Oracle"]


def test_failure_that_nobody_sees(page):
    section = page.find("section", id="failed")[0]
    assert "2 of 5 shapes failed" in section["text"]
    lines = [e["text"] for e in page.inside(section, "tr") if "data-failed" in e]
    assert len(lines) == len(FAILED)
    for row, line in zip(FAILED, lines, strict=True):
        assert row["name"] in line and row["reason"] in line and row["status"] in line
    assert "3 of 5 shapes measured, 2 failed" in page.find("header", class_="masthead")[0]["text"]
    assert page.find("a", href="#failed")[0]["text"] == "Failed (2)"


def test_header_without_what_decides_the_numbers(page):
    header = page.find("header", class_="masthead")[0]["text"]
    for words in (
        "test-codec",
        "exact-v1",
        "log3d-v1",
        "500 points",
        "box 0.95",
        "box 0.98",
        "2026-01-02",
        "abacus",
        "Seed7",
    ):
        assert words in header
    assert f"{RESOLUTION} voxels an axis" in header


def test_picture_that_is_missing_or_damaged(tmp_path):
    folder = write_run(tmp_path / "run")
    names = [name for name, *_ in shapes()]
    (folder / "shapes" / names[0] / "error.png").unlink()
    (folder / "shapes" / names[1] / "original.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "shapes" / names[1] / "reconstruction.bin").unlink()
    (folder / "shapes" / names[2] / "original.bin").write_bytes(b"SCVM\x01 and no more")
    page = page_of(folder)
    cards = {page.inside(e, "h3")[0]["text"]: e for e in page.find("article")}
    assert "No picture: not in the run folder." in cards[names[0]]["text"]
    assert "No picture: cannot be read" in cards[names[1]]["text"]
    assert "No 3D view: reconstruction.bin is not in the run folder." in cards[names[1]]["text"]
    assert "No 3D view: original.bin is not a view mesh" in cards[names[2]]["text"]
    assert len(page.find("img")) == 9 - 2 and len(page.find("button", class_="open")) == 1
    assert all(e["alt"] for e in page.find("img"))


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "a/../../b", "a\\b"])
def test_name_that_leads_out_of_the_run(name, tmp_path):
    folder = write_run(tmp_path / "run", [{**shapes()[0][3], "name": name}], pictures=False)
    for place in (tmp_path, tmp_path / "secret", folder / "shapes"):
        place.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (1, 2, 3)).save(place / "original.png")
    page = page_of(folder)
    assert page.find("img") == [] and "its name is no folder" in page.find("article")[0]["text"]


def test_view_that_no_page_can_open(run, page):
    """What the page holds is what `write_view_mesh` wrote, or less of it."""
    for index, (name, *_) in enumerate(shapes()):
        for side in ("original", "reconstruction"):
            blob = base64.b64decode(page.find("script", id=f"view-{index}-{side}")[0]["text"])
            assert blob == (run / "shapes" / name / f"{side}.bin").read_bytes()
            assert len(decode_view_mesh(blob).faces) > 0


def test_page_that_grows_without_bound(run):
    few = page_of(run, cases=1)
    assert (
        len(few.find("article")) == 1
        and "2 better shapes are in the table" in few.find("section", id="worst")[0]["text"]
    )
    tight = page_of(run, view_bytes=1)
    assert len(tight.find("button", class_="open")) == 1
    assert "the page would grow too large" in tight.find("section", id="worst")[0]["text"]


def test_best_shape_shown_as_the_worst(run):
    stored = read_run(run)
    for metric in headline_metrics(stored.metrics):
        order = worst_first(stored, [metric], 10)
        values = [value for index in order if (value := number(stored.rows[index], metric.column)) is not None]
        assert values == sorted(values, reverse=metric.better == "low"), metric.label
        assert set(order) == {0, 1, 2}


def test_run_in_which_everything_failed(tmp_path):
    page = page_of(write_run(tmp_path / "run", list(FAILED), pictures=False))
    assert "0 of 2 shapes measured" in page.find("header", class_="masthead")[0]["text"]
    assert "no averages" in page.find("section", id="overall")[0]["text"] and page.find("article") == []


def test_run_of_one_shape_without_oracle_or_latents(tmp_path):
    row = {
        key: value
        for key, value in shapes()[0][3].items()
        if not key.startswith(("oracle.", "seconds.", "tokens", "bytes"))
    }
    page = page_of(write_run(tmp_path / "run", [row], pictures=False))
    table = next(e for e in page.find("table", class_="metrics"))
    cells = [e["text"] for e in page.inside(table, "td") if "oracle" in e.get("class", "")]
    assert cells and set(cells) == {"\N{EN DASH}"}
    assert "No shape failed." in page.find("section", id="failed")[0]["text"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"groups": [], "protocols": [{}], "settings": {}}'])
def test_folder_that_holds_no_run(content, tmp_path):
    with pytest.raises(BadFile, match=r"rows\.parquet"):
        write_report(tmp_path)
    folder = write_run(tmp_path / "run", pictures=False)
    path = folder / "aggregate.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadFile, match="aggregate"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_picture_larger_than_a_page_needs(tmp_path):
    Image.effect_noise((1500, 1000), 80).save(tmp_path / "a.png")
    picture = load_picture(tmp_path / "a.png")
    assert not isinstance(picture, str) and (picture.width, picture.height) == (640, 427)
    Image.new("RGB", (9000, 10)).save(tmp_path / "b.png")
    assert load_picture(tmp_path / "b.png") == "too large: 9000 x 10 pixels"
