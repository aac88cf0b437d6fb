"""Files that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shapecodec.errors import BadFile


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends well, and leaves nothing behind when it does not.

    Raises:
        BadFile: the folder is missing or may not be written, or `path` is a folder.
    """
    if path.is_dir():
        raise BadFile("is a folder.", where=str(path), hint="give a file name.")
    if not path.parent.is_dir():
        raise BadFile("the folder does not exist.", where=str(path.parent), hint=f"mkdir -p {path.parent}")
    try:
        # In the same folder, for only there is a rename atomic.
        file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part", delete=False)  # noqa: SIM115
    except OSError as error:
        raise BadFile(f"the folder cannot be written ({error.strerror}).", where=str(path.parent)) from error
    part = Path(file.name)
    try:
        with file:
            yield file  # type: ignore[misc]
        part.chmod(0o644)  # temporary files are born private
        part.replace(path)
    except OSError as error:
        raise BadFile(f"cannot be written ({error.strerror or error}).", where=str(path)) from error
    finally:
        part.unlink(missing_ok=True)
