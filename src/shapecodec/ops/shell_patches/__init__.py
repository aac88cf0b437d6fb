"""Flat patches of a double-layered surface: the nodes of the votes by which its layers are told apart."""

from __future__ import annotations

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")
FLAT = 0.9  # cosine between the directions at the ends of an edge inside a patch, and between those of their opposites
BENT = 0.5  # the same cosine where there is no opposite to leak to
GROW_ROUNDS = 4  # edges from the patches into a rim, which is about three voxels around at one voxel's distance


def shell_patches(directions: Tensor, faces: Tensor, opposite: Tensor, *, backend: str = "auto") -> Tensor:
    """Labels every vertex with a patch.

    Vertices that have an opposite one are in the same patch where edges connect them along which neither their directions
    nor their opposites' turn. Patches grow by GROW_ROUNDS edges into the vertices without an opposite, each of which takes
    the patch of its most similarly directed neighbour (the lowest of equals). Whatever is left forms patches of its own.

    Args:
        directions: (V, 3) float32 unit vectors.
        faces: (F, 3) integer, of a closed oriented mesh (every edge occurs in both directions).
        opposite: (V,) int64 vertex on the other layer, or -1.
        backend: auto, reference (torch, every device) or cpu (numba).

    Returns:
        (V,) int64 in [0, V); numbers are not consecutive.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the device.
    """
    if directions.ndim != 2 or directions.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise BadArgument(
            f"expected directions (V, 3) and faces (F, 3), got {tuple(directions.shape)} and {tuple(faces.shape)}.",
            where="shell_patches",
        )
    if opposite.shape != directions.shape[:1]:
        raise BadArgument(f"opposite must be ({len(directions)},), got {tuple(opposite.shape)}.", where="shell_patches")
    which = choose(backend, directions.device, available=BACKENDS, op="shell_patches")
    if which == "cpu":
        from shapecodec.ops.shell_patches import cpu

        return cpu.shell_patches(directions.contiguous(), faces.contiguous(), opposite.contiguous())
    from shapecodec.ops.shell_patches import reference

    return reference.shell_patches(directions, faces, opposite)
