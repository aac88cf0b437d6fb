"""`shell_patches` compiled: edges are read off the faces, and only faces with an unlabelled vertex are looked at again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from shapecodec.ops.components.cpu import find, unite
from shapecodec.ops.shell_patches import BENT, FLAT, GROW_ROUNDS


def shell_patches(directions: Tensor, faces: Tensor, opposite: Tensor) -> Tensor:
    """See the package."""
    label = np.arange(len(directions))
    limits = np.float32(FLAT), np.float32(BENT)
    _patches(directions.numpy(), faces.numpy(), opposite.numpy(), *limits, GROW_ROUNDS, label)
    return torch.from_numpy(label)


@njit(cache=True, nogil=True)
def _cosine(directions: Any, first: int, second: int) -> Any:
    return (
        directions[first, 0] * directions[second, 0]
        + directions[first, 1] * directions[second, 1]
        + directions[first, 2] * directions[second, 2]
    )


@njit(cache=True, nogil=True)
def _patches(directions: Any, faces: Any, opposite: Any, flat: Any, bent: Any, rounds: int, label: Any) -> None:
    loose = 0
    for f in range(len(faces)):
        for corner in range(3):
            a, b = faces[f, corner], faces[f, (corner + 1) % 3]
            paired = a < b and opposite[a] >= 0 and opposite[b] >= 0
            if paired and _cosine(directions, a, b) > flat and _cosine(directions, opposite[a], opposite[b]) > flat:
                unite(label, a, b)
        if opposite[faces[f, 0]] < 0 or opposite[faces[f, 1]] < 0 or opposite[faces[f, 2]] < 0:
            loose += 1
    rim = np.zeros(loose, np.int64)
    loose = 0
    for f in range(len(faces)):
        if opposite[faces[f, 0]] < 0 or opposite[faces[f, 1]] < 0 or opposite[faces[f, 2]] < 0:
            rim[loose] = f
            loose += 1
    for v in range(len(label)):
        label[v] = find(label, v)
    for v in range(len(label)):
        if opposite[v] < 0:
            label[v] = -1
    _grow(directions, faces, rim, rounds, label)
    _join_rest(directions, faces, rim, bent, label)


@njit(cache=True, nogil=True)
def _grow(directions: Any, faces: Any, rim: Any, rounds: int, label: Any) -> None:
    best = np.full(len(label), np.float32(-2.0), np.float32)
    taken = np.full(len(label), -1, np.int64)
    for _ in range(rounds):
        for f in rim:
            for corner in range(3):
                a, b = faces[f, corner], faces[f, (corner + 1) % 3]
                if label[a] < 0 and label[b] >= 0:
                    alike = _cosine(directions, a, b)
                    if alike > best[a] or (alike == best[a] and label[b] < taken[a]):
                        best[a], taken[a] = alike, label[b]
        for f in rim:
            for corner in range(3):
                a = faces[f, corner]
                if label[a] < 0:
                    label[a] = taken[a]


@njit(cache=True, nogil=True)
def _join_rest(directions: Any, faces: Any, rim: Any, bent: Any, label: Any) -> None:
    root = np.arange(len(label))
    for f in rim:
        for corner in range(3):
            a, b = faces[f, corner], faces[f, (corner + 1) % 3]
            if label[a] < 0 and label[b] < 0 and _cosine(directions, a, b) > bent:
                unite(root, a, b)
    for v in range(len(label)):
        if label[v] < 0:
            label[v] = find(root, v)
