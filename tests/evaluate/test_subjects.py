"""Meshes that are missed, taken twice or cannot be told apart."""

from pathlib import Path

import pytest

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.subjects import find_subjects, in_random_order, listing_digest

HEAD = "split,file,name,source_repo,licence,attribution,level,category\n"


def fill(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return folder


def test_files_are_missed_or_taken_twice(tmp_path):
    fill(tmp_path, "b.ply", "deep/er/c.GLB", "a.obj", "notes.txt", ".hidden/d.ply", ".e.ply")
    found = find_subjects(tmp_path)
    assert [(subject.name, subject.file, subject.level) for subject in found] == [
        ("a", "a.obj", ""), ("b", "b.ply", ""), ("c", "deep/er/c.GLB", ""),
    ]  # fmt: skip
    assert all(subject.path == tmp_path / subject.file for subject in found)
    assert [subject.name for subject in find_subjects(tmp_path / "b.ply")] == ["b"]


def test_shapes_of_one_name_overwrite_each_other(tmp_path):
    fill(tmp_path, "1/model.obj", "2/model.obj", "3/other.ply")
    assert [subject.name for subject in find_subjects(tmp_path)] == ["1__model", "2__model", "3__other"]
    fill(tmp_path, "2/model.ply")
    with pytest.raises(BadFile, match="2 files have the name '2__model'"):
        find_subjects(tmp_path)


def test_long_names_do_not_fit_the_file_system(tmp_path):
    long = ["x" * 120 + "/" + "y" * 100 + end + ".obj" for end in "ab"]
    names = [subject.name for subject in find_subjects(fill(tmp_path, *long, "z/" + "y" * 100 + "a.obj"))]
    assert len(set(names)) == 3 and max(len(name) for name in names) <= 150


def test_levels_and_categories_of_the_manifest_are_lost(tmp_path):
    rows = ["test,m/a.drc,A,src,CC0,me,L3,chair", "train,m/b.drc,B,src,CC0,me,L1,table"]
    (tmp_path / "manifest.csv").write_text(HEAD + "\n".join(rows) + "\n")
    fill(tmp_path, "m/a.drc", "m/b.drc", "m/c.drc")
    (only,) = find_subjects(tmp_path)
    assert (only.name, only.level, only.category) == ("a", "L3", "chair")
    assert [subject.name for subject in find_subjects(tmp_path, "train")] == ["b"]
    assert [subject.name for subject in find_subjects(tmp_path, "all")] == ["a", "b"]
    (tmp_path / "m/a.drc").unlink()
    with pytest.raises(BadFile, match=r"1 files are missing, the first is 'm/a.drc'"):
        find_subjects(tmp_path)


def test_nothing_to_do_looks_like_success(tmp_path):
    for data, split, words in (
        (tmp_path, None, "no mesh"),
        (tmp_path / "x", None, "no such"),
        (tmp_path, "test", "no manifest"),
    ):
        with pytest.raises((BadFile, BadArgument), match=words):
            find_subjects(data, split)
    with pytest.raises(BadArgument, match="unknown split"):
        find_subjects(tmp_path, "tset")


def test_limited_run_takes_the_first_of_the_alphabet(tmp_path):
    found = find_subjects(fill(tmp_path, *(f"{letter}.obj" for letter in "abcdefghij")))
    shuffled = [subject.name for subject in in_random_order(found, 0)]
    assert sorted(shuffled) == [subject.name for subject in found] != shuffled
    assert shuffled != [subject.name for subject in in_random_order(found, 1)]
    without = [subject for subject in found if subject.name != shuffled[3]]
    assert [subject.name for subject in in_random_order(without, 0)] == shuffled[:3] + shuffled[4:]


def test_changed_data_has_the_same_digest(tmp_path):
    found = find_subjects(fill(tmp_path, "a.obj", "b.obj"))
    before = listing_digest(found)
    assert before == listing_digest(found[::-1]) != listing_digest(found[:1])
    (tmp_path / "a.obj").write_text("longer than before")
    assert listing_digest(found) != before
