"""Through results of `compare`, number by number."""

from collections.abc import Iterator
from typing import Any

import torch

from shapecodec.mesh import Mesh


def numbers(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(path, number) of every number of a nested dict, paths with slashes; None, texts and lists are left out."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, f"{path}/{key}" if path else key)
    elif isinstance(tree, int | float):
        yield path, float(tree)


def lookup(tree: dict[str, Any], path: str) -> float:
    for key in path.split("/"):
        tree = tree[key]
    return tree  # type: ignore[return-value]


def outside_their_intervals(one: dict[str, Any], two: dict[str, Any], errors: float) -> list[str]:
    """The numbers with a standard error that differ by more than `errors` of them, with both values."""
    missed = []
    for path, error in numbers(one["standard_error"]):
        other = lookup(two["standard_error"], path)
        a, b = lookup(one, path), lookup(two, path)
        if None in (a, b, other):
            missed.append(f"{path}: {a} and {b}")
        elif not abs(a - b) <= errors * (error**2 + other**2) ** 0.5 + 1e-9:
            missed.append(f"{path}: {a} and {b}, standard errors {error} and {other}")
    return missed


def cut_faces(mesh: Mesh, rounds: int, generator: torch.Generator) -> Mesh:
    """Every face cut into 3^rounds at random inner points, faces shuffled; the same surface, edges and openings."""
    vertices, faces = mesh.vertices, mesh.faces
    for _ in range(rounds):
        weights = 0.15 + torch.rand(len(faces), 3, generator=generator)
        weights = weights / weights.sum(1, keepdim=True)
        inner = torch.arange(len(faces)) + len(vertices)
        vertices = torch.cat([vertices, torch.einsum("fk,fkc->fc", weights, vertices[faces])])
        a, b, c = faces.unbind(1)
        faces = torch.stack([a, b, inner, b, c, inner, c, a, inner], 1).reshape(-1, 3)
    return Mesh(vertices, faces[torch.randperm(len(faces), generator=generator)])
