"""A small data set on disk, for tests."""

import csv
import hashlib
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
COLUMNS = ["split", "file", "name", "source_repo", "licence", "attribution", "level", "category", "sha256"]


def row(split, name, licence):
    digest = hashlib.sha256((ASSETS / f"{name}.drc").read_bytes()).hexdigest()
    return dict(
        zip(
            COLUMNS,
            [split, f"{split}/{name}.drc", name, "a/b", licence, "Quaternius", "L1", "other", digest],
            strict=True,
        )
    )


def write_manifest(folder, rows):
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
