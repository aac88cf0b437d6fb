"""How a mesh hangs together: edges, components, volume, self-intersections. Counted on the CPU (numba).

14M faces take a few seconds, without the self-intersections.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numba import njit, prange

from shapecodec.mesh import Mesh
from shapecodec.ops.self_intersections import self_intersections


@dataclass(frozen=True)
class Topology:
    """Counts of a mesh as its face list states it (vertices are not welded).

    Args:
        vertices: rows, used or not.
        faces: rows.
        area: in squared units of the vertices.
        watertight: every edge belongs to exactly two faces.
        boundary_edges: edges of one face.
        non_manifold_edges: edges of more than two faces.
        components: sets of faces that share vertices.
        volume: signed, in cubed units; None unless watertight.
        self_intersections: pairs of faces, see `ops.self_intersections`; None if not counted.
        intersecting_faces: faces of such pairs; None if not counted.
    """

    vertices: int
    faces: int
    area: float
    watertight: bool
    boundary_edges: int
    non_manifold_edges: int
    components: int
    volume: float | None
    self_intersections: int | None = None
    intersecting_faces: int | None = None

    def scaled(self, factor: float) -> Topology:
        """The same mesh with all lengths multiplied."""
        volume = None if self.volume is None else self.volume * factor**3
        return replace(self, area=self.area * factor**2, volume=volume)

    def as_dict(self) -> dict[str, int | float | bool | None]:
        """JSON-ready."""
        return asdict(self)


@njit(cache=True, parallel=True, nogil=True)
def _edge_keys(faces: np.ndarray, stride: int) -> np.ndarray:
    """(3F,) int64 low * stride + high of each face's edges; the largest key for faces that repeat a vertex."""
    keys = np.zeros(3 * len(faces), np.int64)
    for f in prange(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        for k in range(3):
            start, end = (a, b) if k == 0 else ((b, c) if k == 1 else (c, a))
            repeated = a == b or b == c or c == a
            keys[3 * f + k] = np.iinfo(np.int64).max if repeated else min(start, end) * stride + max(start, end)
    return keys


@njit(cache=True, nogil=True)
def _count_runs(keys: np.ndarray) -> tuple[int, int, int]:
    """Edges of one, two and more faces, from sorted keys."""
    once, twice, more, start = 0, 0, 0, 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[start]:
            if keys[start] != np.iinfo(np.int64).max:
                once += i - start == 1
                twice += i - start == 2
                more += i - start > 2
            start = i
    return once, twice, more


@njit(cache=True, nogil=True)
def _root(parent: np.ndarray, vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@njit(cache=True, nogil=True)
def _count_components(faces: np.ndarray, vertices: int) -> int:
    """Union-find over the vertices of each face; vertices without a face are not counted."""
    parent, used = np.arange(vertices, dtype=np.int32), np.zeros(vertices, np.bool_)
    merged = 0
    for f in range(len(faces)):
        for k in range(3):
            used[faces[f, k]] = True
        for k in range(1, 3):
            a, b = _root(parent, faces[f, 0]), _root(parent, faces[f, k])
            if a != b:
                merged += 1
                parent[max(a, b)] = min(a, b)
    return used.sum() - merged


@njit(cache=True, nogil=True)
def _area_and_volume(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """Sums in float64, in the order of the faces: the same for any number of threads."""
    area, volume = 0.0, 0.0
    origin = vertices[faces[0, 0]].astype(np.float64)
    p = np.zeros((3, 3))
    for f in range(len(faces)):
        for k in range(3):
            for axis in range(3):
                p[k, axis] = vertices[faces[f, k], axis] - origin[axis]
        u, v, w = p[1] - p[0], p[2] - p[0], p[0]
        x, y, z = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
        area += np.sqrt(x * x + y * y + z * z) / 2
        volume += (x * w[0] + y * w[1] + z * w[2]) / 6
    return area, volume


def topology(mesh: Mesh, intersections: bool = False) -> Topology:
    """Counts, area and volume of a mesh; exact and deterministic.

    Args:
        mesh: on any device; counted on the CPU.
        intersections: also count self-intersections, a second for 200k faces.
    """
    vertices, faces = mesh.numpy()
    crossings = self_intersections(mesh.vertices, mesh.faces) if intersections else None
    keys = _edge_keys(faces, len(vertices))
    keys.sort()
    once, _, more = _count_runs(keys)
    area, volume = _area_and_volume(vertices, faces)
    closed = once == 0 and more == 0
    return Topology(
        vertices=len(vertices),
        faces=len(faces),
        area=float(area),
        watertight=closed,
        boundary_edges=int(once),
        non_manifold_edges=int(more),
        components=int(_count_components(faces, len(vertices))),
        volume=float(volume) if closed else None,
        self_intersections=crossings.pairs if crossings is not None else None,
        intersecting_faces=int(crossings.faces.sum()) if crossings is not None else None,
    )
