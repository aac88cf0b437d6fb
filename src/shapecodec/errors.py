"""Errors that say what is wrong, where, and the next thing to try.

The command line maps them to exit codes: a `UserError` is the user's input (1), anything else is our fault (2).
"""

from __future__ import annotations

import importlib
from types import ModuleType


class ShapecodecError(Exception):
    """Base of every error raised on purpose.

    Args:
        what: one sentence, what is wrong, with the offending value.
        where: the file, argument or array that it was found in.
        hint: the next thing to try.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        message = f"{where}: {what}" if where else what
        super().__init__(f"{message} Try: {hint}" if hint else message)

    def __reduce__(self) -> tuple[object, ...]:  # keyword-only arguments must survive a child process
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[ShapecodecError], what: str, where: str, hint: str) -> ShapecodecError:
    return kind(what, where=where, hint=hint)


class UserError(ShapecodecError):
    """The input is at fault: exit code 1."""


class BadMesh(UserError):
    """A mesh that has no usable surface, or arrays that are not a mesh."""


class BadFile(UserError):
    """A file that is missing, truncated, of unknown format, or that lies about its content."""


class BadLatents(UserError):
    """Latents that belong to another codec, are truncated or inconsistent."""


class BadArgument(UserError):
    """An argument outside its range, or a combination that cannot be served."""


class MissingExtra(UserError):
    """An optional library is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library, or say the pip line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the optional library '{module}' is not installed.", hint=f"pip install 'shapecodec[{extra}]'"
        ) from error
