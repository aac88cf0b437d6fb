"""HTML in which nothing is forgotten to be escaped: text is escaped unless its type says that it is HTML already."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, TypeAlias

_VOID = frozenset({"br", "hr", "img", "input", "meta", "wbr"})
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}
_FORBIDDEN = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")


class Html(str):
    """A piece of HTML; every other `str` is text."""

    __slots__ = ()


Child: TypeAlias = "str | Html | Iterable[Child] | None"


def render(*children: Child) -> Html:
    """Pieces and texts one after the other; None is nothing, iterables are flattened."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(child if isinstance(child, Html) else escape(child))
        else:
            parts.append(render(*child))
    return Html("".join(parts))


def escape(text: str) -> Html:
    """Text as HTML; quotes too, and control characters that HTML forbids become a visible replacement."""
    kept = text.translate(_FORBIDDEN).encode("utf-8", "replace").decode()  # and lone surrogates, which no file can hold
    return Html(html.escape(kept, quote=True))


def tag(name: str, /, *children: Child, **attributes: Any) -> Html:
    """An element. `class_` is class, `data_row` is data-row; True stands without a value, None and False are left out."""
    words = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opened = f"<{name}{''.join(words)}>"
    return Html(opened if name in _VOID else f"{opened}{render(*children)}</{name}>")


def script_json(value: Any) -> Html:
    """JSON for the inside of a script element: no string of it can end the element, whatever it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Html(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
