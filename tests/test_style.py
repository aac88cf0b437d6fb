"""Rules about the sources and pages themselves, so far as they can be checked."""

import ast
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("src", "tests", "bench", "examples") for path in (ROOT / folder).rglob("*.py"))
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md"), *ROOT.glob("weights/**/*.md")]
)
LONGEST, WINDOW, MOST_REPEATED = 400, 10, 0.01


def windows(path: Path) -> list[tuple[str, ...]]:
    """Every run of ten lines that say something: no blanks, no imports."""
    text = [line.strip() for line in path.read_text().splitlines()]
    lines = [line for line in text if line and not line.startswith(("import ", "from "))]
    return [tuple(lines[start : start + WINDOW]) for start in range(len(lines) - WINDOW + 1)]


def test_file_that_nobody_reads_to_the_end():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


def test_copied_code():
    places = Counter(window for path in SOURCES if "src" in path.parts for window in windows(path))
    repeated = {window: count for window, count in places.items() if count > 1}
    share = sum(repeated.values()) / sum(places.values())
    examples = ["\n".join(window) for window in list(repeated)[:3]]
    assert share <= MOST_REPEATED, examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_to_nowhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose)]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


WEIGHTS = sorted(
    path.parent for root in ("weights", "src/shapecodec/weights") for path in (ROOT / root).glob("*/config.json")
)


@pytest.mark.parametrize("folder", WEIGHTS, ids=lambda folder: folder.name)
def test_weights_without_the_licences_of_the_meshes_behind_them(folder):
    """A config does not say where the data lay (`data` is null), but real meshes are drawn with probability `real`."""
    source = json.loads((folder / "train_config.json").read_text())["source"]
    if source["real"] > 0:
        attributions = (ROOT / "LICENSES-DATA.md").read_text()
        assert (folder / "LICENSES-DATA.md").read_text() == attributions and attributions.count("\n### ") > 30


def test_readme_names_a_make_target_that_is_gone():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL))
    named = set(re.findall(r"^make (?:\w+=\S* )*([a-z][\w-]*)", blocks, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_readme_names_a_verb_or_name_that_is_gone():
    import shapecodec
    from shapecodec.cli import VERBS

    text = (ROOT / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    assert set(re.findall(r"^shapecodec ([a-z]+)", blocks, flags=re.MULTILINE)) <= set(VERBS)
    imported = re.search(r"from shapecodec import (.*)", text)
    assert imported is not None
    for name in imported[1].split(", "):
        assert getattr(shapecodec, name) is not None


def test_optional_import_that_fails_silently():
    guarded = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Try) and any(isinstance(child, ast.Import | ast.ImportFrom) for child in node.body):
                guarded.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert guarded == []


def test_dependency_that_is_not_explained():
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    listed = {re.match(r"[\w-]+", line)[0].lower() for group in groups for line in group}
    assert sorted(name for name in listed if name not in page) == []
