"""Which meshes an evaluation runs over: a folder with a manifest.csv, any folder of mesh files, or one file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shapecodec.data.manifest import SPLITS, read_manifest
from shapecodec.errors import BadArgument, BadFile
from shapecodec.io.mesh_files import FORMATS
from shapecodec.rng import counted_seed

_LONGEST_NAME = 150  # bytes: names become files with suffixes, and file systems end at 255


@dataclass(frozen=True)
class Subject:
    """A mesh to measure on.

    Args:
        name: unique within its data; the file's stem, or its path with "__" for "/" where stems repeat.
        path: its file.
        file: the path below the data folder, with "/".
        level: detail level (L1 to L4), or "" where nobody said: then it is measured.
        category: kind of object, or "".
    """

    name: str
    path: Path
    file: str
    level: str = ""
    category: str = ""


def find_subjects(data: Path, split: str | None = None) -> tuple[Subject, ...]:
    """The meshes of a folder, by name.

    Args:
        data: a folder with a manifest.csv (docs/data.md), whose rows give files, levels and categories; a folder without
            one, searched with its subfolders for every format that is read; or one mesh file.
        split: train, val, test or all, for folders with a manifest; None is test there.

    Raises:
        BadFile: no such folder, no mesh in it, a manifest that names a missing file, or names that cannot be told apart.
        BadArgument: an unknown split, or one for data without a manifest.
    """
    if split not in (None, "all", *SPLITS):
        raise BadArgument(f"unknown split '{split}'.", where="--split", hint=f"all, {', '.join(SPLITS)}.")
    if not data.exists():
        raise BadFile("no such file or folder.", where=str(data), hint="check the path.")
    listed = data.is_dir() and (data / "manifest.csv").is_file()
    if split is not None and not listed:
        raise BadArgument(
            "there is no manifest.csv that could say the split.", where=str(data), hint="leave --split out."
        )
    if listed:
        entries = read_manifest(data, None if split == "all" else split or "test")
        described = {entry.file: (entry.level, entry.category) for entry in entries}
    elif data.is_dir():
        files = sorted(path.relative_to(data) for path in data.rglob("*") if path.suffix.lower() in FORMATS)
        visible = (file for file in files if not any(part.startswith(".") for part in file.parts))
        described = {file.as_posix(): ("", "") for file in visible if (data / file).is_file()}
    else:
        described = {data.name: ("", "")}
    base = data if data.is_dir() else data.parent
    missing = [file for file in described if not (base / file).is_file()]
    if missing or not described:
        what = (
            f"{len(missing)} files are missing, the first is '{missing[0]}'." if missing else "there is no mesh in it."
        )
        raise BadFile(what, where=str(data), hint=f"mesh files are {' '.join(FORMATS)}.")
    names = _names(list(described), str(data))
    subjects = (Subject(names[file], base / file, file, *about) for file, about in described.items())
    return tuple(sorted(subjects, key=lambda subject: subject.name))


def _names(files: Sequence[str], where: str) -> dict[str, str]:
    """A name for each file: stems where all of them differ."""
    stems = {file: Path(file).stem for file in files}
    if len(set(stems.values())) < len(files):
        stems = {file: "__".join(Path(file).with_suffix("").parts) for file in files}
    names = {file: _shortened(stem) for file, stem in stems.items()}
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise BadFile(f"{count} files have the name '{name}'.", where=where, hint="keep one format of each mesh.")
    return names


def _shortened(name: str) -> str:
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return name.encode()[: _LONGEST_NAME - 20].decode(errors="ignore") + "-" + digest


def in_random_order(subjects: Sequence[Subject], seed: int) -> list[Subject]:
    """A fixed shuffle in which a shape's place depends on its name and the seed alone: the first n are a fair sample."""
    return sorted(subjects, key=lambda subject: counted_seed(seed, purpose=f"order of {subject.name}"))


def listing_digest(subjects: Sequence[Subject]) -> str:
    """16 hexadecimal digits that change with any file's path or size."""
    lines = sorted(f"{subject.file}\t{subject.path.stat().st_size}\n" for subject in subjects)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
