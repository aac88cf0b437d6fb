"""How the page prints numbers: one power of ten and one count of decimals a metric, so that columns align."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shapecodec.evaluate.report.html import Html, tag

MISSING = "\N{EN DASH}"
_SUPERSCRIPT = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Numbers are divided by 10^exponent and printed with `decimals` digits."""

    exponent: int = 0
    decimals: int = 3

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Scale:
        """Three significant digits of the values' median; a power of ten only below 0.01 and above a million."""
        sizes = sorted(abs(value) for value in values if value is not None and value != 0.0)
        if not sizes:
            return cls()
        typical = sizes[len(sizes) // 2]
        place = math.floor(math.log10(typical) + 1e-9)
        exponent = 0 if -2 <= place < 6 else 3 * math.floor(place / 3)
        return cls(exponent, min(max(2 - (place - exponent), 0), 4))

    def text(self, value: float | None) -> str:
        """The number as it is printed; a dash where there is none."""
        if value is None:
            return MISSING
        shown = f"{value / 10.0**self.exponent:,.{self.decimals}f}"
        return shown.lstrip("-") if float(shown.replace(",", "")) == 0 else shown.replace("-", "\N{MINUS SIGN}")

    def html(self, value: float | None, class_: str | None = None) -> Html:
        """A data element: the printed number, and the stored one as its value."""
        if value is None:
            return tag("span", MISSING, class_=class_)
        return tag("data", self.text(value), value=repr(float(value)), class_=class_)

    def factor(self) -> str:
        """What printed numbers are to be multiplied by: empty for one."""
        return f"\N{MULTIPLICATION SIGN} 10{str(self.exponent).translate(_SUPERSCRIPT)}" if self.exponent else ""


def size_text(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return MISSING
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:
            shown = count / size
            return f"{shown:.{0 if shown >= 99.95 else 1 if shown >= 9.995 else 2}f} {unit}"
    return f"{count:.0f} B"
