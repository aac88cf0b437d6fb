"""Which triangles of a mesh pass through each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

OP = "self_intersections"
BITS = 30  # of the lattice: the longest side of the box is 2^30 - 1 steps


class SelfIntersections(NamedTuple):
    """What `self_intersections` finds.

    Args:
        pairs: pairs of faces that meet in more than their common vertices and edges.
        faces: (F,) bool, the faces of such pairs.
    """

    pairs: int
    faces: Tensor


def self_intersections(vertices: Tensor, faces: Tensor, *, backend: str = "auto") -> SelfIntersections:
    """Count the pairs of faces that meet where a clean mesh does not.

    Faces are closed sets. Two of them count as a pair if their intersection holds a point outside their common vertices
    and common edge: faces that cross, touch or overlap, neighbours folded onto each other, and repeated faces. Vertices
    are common if they lie in the same place, welded or not. Faces without area are left out.

    Exact on a lattice: vertices are first rounded to 2^-30 of the box's longest side (a step of 9e-10; float32 itself is
    coarser than that for coordinates above 1/64 of the side); every decision is then made in integers without rounding.

    Args:
        vertices: (V, 3) floating point, finite.
        faces: (F, 3) int64 rows of `vertices`; F may be 0.
        backend: "cpu" (numba, packed box tree, also for meshes on a GPU), "reference" (F x F, exact big integers: a
            few hundred faces), or "auto".

    Raises:
        BadArgument: shapes, dtypes, non-finite coordinates, indices out of range, or a backend that cannot serve.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise BadArgument(
            f"expected vertices (V, 3) and faces (F, 3), got {tuple(vertices.shape)} and {tuple(faces.shape)}.",
            where=OP,
        )
    if faces.dtype != torch.int64:
        raise BadArgument(f"faces must be int64, got {faces.dtype}.", where=OP)
    chosen = choose(backend, torch.device("cpu"), available=("reference", "cpu"), op=OP)
    if len(faces) == 0:
        return SelfIntersections(0, torch.zeros(0, dtype=torch.bool, device=faces.device))
    low, high = faces.aminmax()
    if int(low) < 0 or int(high) >= len(vertices):
        raise BadArgument(f"faces point outside the {len(vertices):,} vertices ({int(low)} to {int(high)}).", where=OP)
    if not bool(torch.isfinite(vertices).all()):
        raise BadArgument("vertices must be finite.", where=OP)
    rows = faces.cpu()
    lattice = to_lattice(vertices.detach().cpu(), rows)
    if chosen == "reference":
        from shapecodec.ops.self_intersections.reference import count_pairs

        pairs, touched = count_pairs(lattice.numpy(), rows.numpy())
    else:
        from shapecodec.ops.self_intersections.cpu import count_pairs as count_pairs_cpu

        pairs, touched = count_pairs_cpu(lattice.contiguous().numpy(), rows.contiguous().numpy())
    return SelfIntersections(pairs, torch.from_numpy(touched).to(faces.device))


def to_lattice(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) int32 places of vertices (V, 3) on a lattice of 2^30 points along the longest side of the box of `faces`.

    Vertices that no face uses may lie outside the box; they are moved to its rim.
    """
    wide = vertices.double()
    used = torch.zeros(len(vertices), dtype=torch.bool)
    used[faces.reshape(-1)] = True
    corners = wide[used]
    low = corners.amin(0)
    side = float((corners.amax(0) - low).max())
    steps = (wide - low) / side if side > 0.0 else wide - low  # divided first: 2^30 / side overflows for tiny sides
    return (steps.clamp(0.0, 1.0) * (2**BITS - 1)).round().int()
