"""Frozen configuration dataclasses to JSON and back, strictly: a file from elsewhere decides sizes and loop counts."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from shapecodec.errors import BadFile

MAX_WHOLE = 1 << 20  # no size or count of any codec comes near

Config = TypeVar("Config")


def config_to_json(config: Any) -> dict[str, Any]:
    """Plain JSON values of a dataclass; tuples become lists."""
    return dataclasses.asdict(config)


def config_from_json(kind: type[Config], values: Any, *, where: str = "config.json") -> Config:
    """A dataclass of `kind` from JSON values. Missing fields take their defaults.

    Raises:
        BadFile: not an object, unknown or missing fields, a value of another type, or a number beyond +-2^20.
        BadArgument: what the dataclass itself refuses.
    """
    if not isinstance(values, dict):
        raise BadFile(f"expected an object of settings, got {type(values).__name__}.", where=where)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        hint = "upgrade shapecodec, if the file is newer."
        raise BadFile(f"unknown settings {unknown[:5]} for {kind.__name__}.", where=where, hint=hint)
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise BadFile(f"missing settings {missing[:5]} for {kind.__name__}.", where=where)
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation asks; whole numbers pass as floats, lists as tuples."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(hint) if choice is not types.NoneType]
        return None if value is None and len(choices) < len(get_args(hint)) else _value(choices[0], value, where)
    if origin is Literal and value in get_args(hint):
        return value
    if origin is tuple and isinstance(value, list) and len(value) <= 1024:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) == len(value):
            return tuple(_value(one, item, where) for one, item in zip(inner, value, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_from_json(hint, value, where=where)
    plain = isinstance(value, int) and not isinstance(value, bool)
    if hint is float and (plain or isinstance(value, float)) and math.isfinite(value):
        return float(value)
    if hint is int and plain and abs(value) <= MAX_WHOLE:
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise BadFile(f"{str(value)[:60]!r} is no valid {getattr(hint, '__name__', hint)}.", where=where)


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """One line `name: old -> new` for each value in which two JSON objects differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        nested = [differences(old.get(key), new.get(key), f"{name}.{key}" if name else key) for key in keys]
        return [line for lines in nested for line in lines]
    return [] if old == new else [f"{name}: {json.dumps(old)} -> {json.dumps(new)}"]
