"""A z-buffer on the CPU: which triangle each pixel sees, for meshes of tens of millions of triangles.

The image is cut into bands of rows. A band is one thread's work: it walks all triangles in their order and draws those
that reach it, so no two threads touch one pixel and the result does not depend on the number of threads. Threads come
from Python and the kernels release its lock: numba takes 40 s to compile these kernels with loops of its own in
parallel, and 5 s without.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from shapecodec.camera import Camera
from shapecodec.mesh import Mesh
from shapecodec.ops.rasterise.bands import BANDS, in_bands


class Visible(NamedTuple):
    """What each pixel's centre sees.

    Args:
        face: (H, W) int32, -1 where nothing is.
        weights: (H, W, 3) float32 barycentric coordinates on that face, corrected for perspective.
        depth: (H, W) float32 depth after projection, inf where nothing is.
    """

    face: np.ndarray
    weights: np.ndarray
    depth: np.ndarray


def rasterise(mesh: Mesh, camera: Camera) -> Visible:
    """The nearest face behind every pixel centre.

    Both sides of a face are seen. Faces that reach behind the camera are left out. Of equally near faces the first one
    wins.
    """
    scene = _project(mesh, camera)
    face, nearest = _nearest(scene, camera)
    weights = np.zeros((*face.shape, 3), np.float32)
    pixels, _, w, faces = scene
    in_bands(camera.height, lambda top, bottom: _weigh(face, pixels, w, faces, top, bottom, weights))
    return Visible(face, weights, nearest)


def nearest_faces(mesh: Mesh, camera: Camera, *, bands: int = BANDS) -> tuple[np.ndarray, np.ndarray]:
    """`face` and `depth` of `rasterise`, without the weights; 1 band where many pictures are drawn side by side."""
    return _nearest(_project(mesh, camera), camera, bands)


def _project(mesh: Mesh, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (V, 2), depth (V,), w (V,) and the faces (F, 3)."""
    pixels, depth, w = camera.project(mesh.vertices.cpu())
    return pixels.numpy(), depth.numpy(), w.numpy(), mesh.faces.cpu().numpy()


def _nearest(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], camera: Camera, bands: int = BANDS
) -> tuple[np.ndarray, np.ndarray]:
    pixels, depth, w, faces = scene
    rows = _row_ranges(pixels, w, faces, camera.height)
    face = np.full((camera.height, camera.width), -1, np.int32)
    nearest = np.full(face.shape, np.inf, np.float32)
    in_bands(camera.height, lambda top, bottom: _draw(pixels, depth, faces, rows, top, bottom, face, nearest), bands)
    return face, nearest


@njit(cache=True, nogil=True)
def _row_ranges(pixels: np.ndarray, w: np.ndarray, faces: np.ndarray, height: int) -> np.ndarray:
    """(F, 2) int16 first and last row whose centres a face may cover; (1, 0) for none."""
    rows = np.zeros((len(faces), 2), np.int16)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        low = min(pixels[a, 1], min(pixels[b, 1], pixels[c, 1]))
        high = max(pixels[a, 1], max(pixels[b, 1], pixels[c, 1]))
        first = np.ceil(max(low - np.float32(0.5), np.float32(0.0)))
        last = np.floor(min(high - np.float32(0.5), np.float32(height - 1)))
        if min(w[a], min(w[b], w[c])) <= 0 or not first <= last:
            first, last = np.float32(1), np.float32(0)
        rows[f, 0], rows[f, 1] = np.int16(first), np.int16(last)
    return rows


@njit(cache=True, nogil=True)
def _draw(
    pixels: np.ndarray,
    depth: np.ndarray,
    faces: np.ndarray,
    rows: np.ndarray,
    top: int,
    bottom: int,
    face: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """All faces, in the rows from `top` up to `bottom`."""
    for f in range(len(faces)):
        first, last = int(rows[f, 0]), int(rows[f, 1])
        if first < bottom and last >= top and first <= last:
            first, last = max(first, top), min(last, bottom - 1)
            _draw_face(pixels, depth, faces, f, first, last, face, nearest)


@njit(cache=True, nogil=True)
def _draw_face(
    pixels: np.ndarray,
    depth: np.ndarray,
    faces: np.ndarray,
    f: int,
    first: int,
    last: int,
    face: np.ndarray,
    nearest: np.ndarray,
) -> None:
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = np.float64(pixels[a, 0]), np.float64(pixels[a, 1])
    bx, by = np.float64(pixels[b, 0]), np.float64(pixels[b, 1])
    cx, cy = np.float64(pixels[c, 0]), np.float64(pixels[c, 1])
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0:
        return
    left = np.int64(max(np.ceil(min(ax, min(bx, cx)) - 0.5), 0.0))
    right = np.int64(min(np.floor(max(ax, max(bx, cx)) - 0.5), np.float64(face.shape[1] - 1)))
    for i in range(first, last + 1):
        y = i + 0.5
        for j in range(left, right + 1):
            x = j + 0.5
            u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
            v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
            t = 1.0 - u - v
            if u >= 0 and v >= 0 and t >= 0:
                z = np.float32(u * depth[a] + v * depth[b] + t * depth[c])
                if z < nearest[i, j]:
                    nearest[i, j], face[i, j] = z, f


@njit(cache=True, nogil=True)
def _weigh(
    face: np.ndarray, pixels: np.ndarray, w: np.ndarray, faces: np.ndarray, top: int, bottom: int, weights: np.ndarray
) -> None:
    """Barycentric coordinates of the pixel centres in the rows from `top` up to `bottom`."""
    for i in range(top, bottom):
        for j in range(face.shape[1]):
            f = face[i, j]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            x, y = j + 0.5, i + 0.5
            ax, ay = np.float64(pixels[a, 0]) - x, np.float64(pixels[a, 1]) - y
            bx, by = np.float64(pixels[b, 0]) - x, np.float64(pixels[b, 1]) - y
            cx, cy = np.float64(pixels[c, 0]) - x, np.float64(pixels[c, 1]) - y
            # Screen weights over w, then normalised: linear on the triangle itself.
            u, v, t = (bx * cy - cx * by) / w[a], (cx * ay - ax * cy) / w[b], (ax * by - bx * ay) / w[c]
            total = u + v + t
            weights[i, j, 0], weights[i, j, 1], weights[i, j, 2] = u / total, v / total, t / total


def seen_vertices(mesh: Mesh, pictures: list[Visible]) -> torch.Tensor:
    """(K,) int64 ascending: the vertices of faces that at least one picture shows."""
    faces = np.unique(np.concatenate([np.unique(p.face[p.face >= 0]) for p in pictures])).astype(np.int64)
    return torch.unique(mesh.faces.cpu()[torch.from_numpy(faces)])
