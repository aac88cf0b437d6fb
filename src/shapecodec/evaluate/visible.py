"""The outer surface: what of a mesh can be seen from around it.

LoG3D and Focusing score TRELLIS-style methods by points that are visible from outside, so that the inner layer of a double
shell does not count. The views are published by neither; here they are fixed, and their name goes with the numbers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from shapecodec.errors import BadArgument, BadMesh
from shapecodec.evaluate.views import Views
from shapecodec.mesh import Mesh
from shapecodec.render.raster import nearest_faces

OUTER = Views(100, 512)
SLACK = (
    0.05  # pixels beside the plane that a pixel sees: 1.7e-4 of a unit cube, a sixth of the gap of a shell at 2048^3
)
GRAZING = 0.1  # cosine below which a pixel's plane says nothing about its neighbourhood
_CHUNK = 1 << 14  # points a thread takes at once
_MOST_DRAWS = 1000  # samples for each visible one before `sample` gives up


class OuterSurface:
    """Pictures of a mesh from all around, that tell which of its points are seen.

    A point counts as seen if, in one picture at least, the pixel that it falls into sees the point's own face, or a face
    (not at grazing incidence) whose plane passes within `SLACK` pixels of it. Pixels that see past the mesh say nothing.
    Deterministic; memory is 4 bytes a pixel and view, 105 MB for `OUTER`.

    Args:
        mesh: anywhere; drawn on the CPU.
        views: directions and resolution, framed on this mesh.
    """

    def __init__(self, mesh: Mesh, views: Views = OUTER) -> None:
        self.mesh = mesh
        drawn = mesh.to("cpu")
        cameras = views.cameras(drawn)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            maps = list(pool.map(lambda camera: nearest_faces(drawn, camera, bands=1)[0], cameras))
        # consecutive directions are neighbours on the sphere: spread them, so that a visible point is soon found
        order = np.argsort(np.arange(len(cameras)) * 0.6180339887498949 % 1.0, kind="stable")
        self._maps = np.stack([maps[view] for view in order])
        pixels = torch.eye(4, dtype=torch.float64)[:3]
        pixels[:2, 3] = views.resolution / 2
        pixels[0, 0], pixels[1, 1] = views.resolution / 2, -views.resolution / 2
        rows = [(pixels @ cameras[view].projection @ cameras[view].view)[:2] for view in order]
        self._rays = torch.stack([torch.stack([*row, cameras[v].view[2]]) for row, v in zip(rows, order, strict=True)])
        vertices, faces = drawn.numpy()
        self._surface = drawn.face_normals().numpy(), vertices, faces
        self._slack = SLACK * 2 * views.frame(drawn)[1] / views.resolution

    def sees(self, points: Tensor, faces: Tensor) -> Tensor:
        """Whether each point is seen.

        Args:
            points: (Q, 3) float32 on the mesh.
            faces: (Q,) int64 the faces that they lie on.

        Returns:
            (Q,) bool on the points' device.

        Raises:
            BadArgument: shapes that do not fit, or faces that the mesh has not.
        """
        if points.ndim != 2 or points.shape[1] != 3 or faces.shape != points.shape[:1]:
            raise BadArgument(
                f"points {tuple(points.shape)} and faces {tuple(faces.shape)}.", where="OuterSurface.sees"
            )
        if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(self.mesh.faces):
            raise BadArgument(f"faces outside the mesh's {len(self.mesh.faces):,}.", where="OuterSurface.sees")
        seen = np.zeros(len(points), np.bool_)
        places, own = points.detach().double().cpu().numpy(), faces.cpu().numpy()
        rays = self._rays.numpy()

        def test(start: int) -> None:
            part = slice(start, start + _CHUNK)
            _test(places[part], own[part], self._maps, rays, *self._surface, self._slack, seen[part])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(test, range(0, len(points), _CHUNK)))
        return torch.from_numpy(seen).to(points.device)

    def seen_faces(self) -> Tensor:
        """(F,) bool: the faces that at least one pixel sees. Faces smaller than a pixel may be missed: see `sees`."""
        seen = np.zeros(len(self.mesh.faces) + 1, np.bool_)  # -1, where nothing is, marks the last row
        for picture in self._maps:
            seen[picture] = True
        return torch.from_numpy(seen[:-1]).to(self.mesh.faces.device)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Like `Mesh.sample`, uniform by area, but on what is seen only.

        Raises:
            BadArgument: fewer than one point.
            BadMesh: fewer than one in a thousand samples is seen.
        """
        if count < 1:
            raise BadArgument(f"points must be at least 1, got {count}.", where="OuterSurface.sample")
        kept: list[tuple[Tensor, Tensor]] = []
        drawn, found = 0, 0
        while found < count:
            if drawn > _MOST_DRAWS * count:
                raise BadMesh(f"{found} of {drawn:,} samples are visible from outside.", where=self.mesh.name)
            ask = count if found == 0 else min((count - found) * drawn // found * 11 // 10 + 16, 8 * count)
            points, faces = self.mesh.sample(ask, generator)
            seen = self.sees(points, faces)
            kept.append((points[seen], faces[seen]))
            drawn, found = drawn + ask, found + len(kept[-1][1])
        points, faces = (torch.cat(parts)[:count] for parts in zip(*kept, strict=True))
        return points, faces


def visible_points(mesh: Mesh, points: Tensor, faces: Tensor, views: Views = OUTER) -> Tensor:
    """(Q,) bool: which points (Q, 3) on faces (Q,) of the mesh are seen from outside; see `OuterSurface`."""
    return OuterSurface(mesh, views).sees(points, faces)


@njit(cache=True, nogil=True)
def _test(
    points: np.ndarray,
    own: np.ndarray,
    maps: np.ndarray,
    rays: np.ndarray,
    normals: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    slack: float,
    seen: np.ndarray,
) -> None:
    """`rays` (N, 3, 4): rows that give column and row of the picture, and the direction to the camera."""
    height, width = maps.shape[1], maps.shape[2]
    for q in range(len(points)):
        x, y, z = points[q, 0], points[q, 1], points[q, 2]
        for view in range(len(maps)):
            ray = rays[view]
            j = np.int64(np.floor(ray[0, 0] * x + ray[0, 1] * y + ray[0, 2] * z + ray[0, 3]))
            i = np.int64(np.floor(ray[1, 0] * x + ray[1, 1] * y + ray[1, 2] * z + ray[1, 3]))
            if i < 0 or j < 0 or i >= height or j >= width:
                continue
            f = maps[view, i, j]
            if f == own[q]:
                seen[q] = True
                break
            if f < 0:
                continue
            a = faces[f, 0]
            facing, beside = 0.0, 0.0
            for k in range(3):
                facing += normals[f, k] * ray[2, k]
                beside += normals[f, k] * (points[q, k] - vertices[a, k])
            if abs(facing) >= GRAZING and abs(beside) <= slack:
                seen[q] = True
                break
