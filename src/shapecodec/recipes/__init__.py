"""Recipes: Python functions that return complete run configurations. `find_recipe` looks one up by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shapecodec.errors import BadArgument
from shapecodec.recipes import focusing, generate, lagem, log3d
from shapecodec.recipes.base import Recipe, build, from_run

RECIPES: dict[str, Callable[[], Recipe[Any]]] = {
    **log3d.RECIPES,
    **lagem.RECIPES,
    **focusing.RECIPES,
    **generate.RECIPES,
}

__all__ = ["RECIPES", "Recipe", "build", "find_recipe", "from_run"]


def find_recipe(name: str) -> Recipe[Any]:
    """The recipe of that name.

    Raises:
        BadArgument: there is none; the message lists all.
    """
    if name not in RECIPES:
        raise BadArgument(f"no recipe '{name}'.", where="train", hint=f"one of {', '.join(RECIPES)}.")
    return RECIPES[name]()
