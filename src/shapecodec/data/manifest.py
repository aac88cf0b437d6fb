"""Which meshes a data set holds, where they come from and under which licence: the rows of manifest.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shapecodec.errors import BadArgument, BadFile

SPLITS = ("train", "val", "test")
# Licences under which meshes, and weights trained on them, may be passed on; the ones with "BY" ask for the attribution
# texts to travel along, share-alike, non-commercial and no-derivatives ones are refused.
OPEN_LICENCES = ("CC0", "public domain", "CC-BY", "MIT", "BSD", "Apache", "Zlib")
_CLOSED_TERMS = ("-NC", "-ND", "-SA", "GPL")
_COLUMNS = ("split", "file", "name", "source_repo", "licence", "attribution")


@dataclass(frozen=True)
class Entry:
    """One mesh of a data set.

    Args:
        name: short name, for messages.
        file: path below the manifest's folder, empty for a mesh that never was a file.
        split: train, val or test.
        licence: as the source states it.
        source: repository or site that it was taken from.
        attribution: what its licence asks to be said, or the source again.
        level: detail level (L1 to L4) or "".
        category: kind of object or "".
        sha256: checksum of the file, or "" when it is not known.
    """

    name: str
    file: str = ""
    split: str = "train"
    licence: str = "unknown"
    source: str = ""
    attribution: str = ""
    level: str = ""
    category: str = ""
    sha256: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the licence lets the mesh and weights trained on it be passed on."""
        if any(term in self.licence.upper() for term in _CLOSED_TERMS):
            return False
        return self.licence.startswith(OPEN_LICENCES)

    @property
    def needs_attribution(self) -> bool:
        """Whether the licence asks that the source be named wherever the mesh goes."""
        return not self.licence.startswith(("CC0", "public domain", "MIT-0"))


def read_manifest(folder: str | Path, split: str | None = None) -> tuple[Entry, ...]:
    """The rows of `folder`/manifest.csv, of one split or of all, in the file's order.

    Raises:
        BadArgument: an unknown split.
        BadFile: there is no manifest, a column is missing, a row names a file outside the folder, or no row is left.
    """
    if split is not None and split not in SPLITS:
        raise BadArgument(f"unknown split '{split}'.", where="read_manifest", hint=f"one of {', '.join(SPLITS)}.")
    path = Path(folder) / "manifest.csv"
    if not path.is_file():
        raise BadFile("there is no such file.", where=str(path), hint="docs/data.md lists the columns of a manifest.")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise BadFile(
                f"the columns {', '.join(missing)} are missing.",
                where=str(path),
                hint="see docs/data.md for the format.",
            )
        entries = tuple(_entry(row, path) for row in reader if split in (None, row["split"]))
    if not entries:
        raise BadFile(f"no row has the split '{split or 'any'}'.", where=str(path))
    return entries


def _entry(row: dict[str, str], path: Path) -> Entry:
    if Path(row["file"]).is_absolute() or ".." in Path(row["file"]).parts:
        raise BadFile(f"'{row['file']}' points outside the folder.", where=str(path))
    return Entry(
        name=row["name"],
        file=row["file"],
        split=row["split"],
        licence=row["licence"],
        source=row["source_repo"],
        attribution=row["attribution"],
        level=row.get("level", ""),
        category=row.get("category", ""),
        sha256=row.get("sha256", ""),
    )


def check_licences(entries: Sequence[Entry], where: str) -> None:
    """Refuse meshes whose licence does not let weights trained on them be passed on.

    Raises:
        BadFile: naming the first of them.
    """
    closed = [entry for entry in entries if not entry.is_open]
    if closed:
        raise BadFile(
            f"{len(closed)} meshes have no open licence, the first is '{closed[0].name}' ({closed[0].licence}).",
            where=where,
            hint="leave them out of the manifest, or pass any_licence=True for private use.",
        )
