"""The one mesh type: a triangle soup that has been checked, and the similarity that puts it into the unit cube.

Frame: right-handed, y up, counter-clockwise faces point outward. Codecs work in the cube [-0.5, 0.5]^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shapecodec.errors import BadArgument, BadMesh

_LEAST, _MOST = 1e-15, 1e15  # extents whose squares, and the areas of small faces, stay within float32
_PIECE = 1 << 20  # faces at once: bounds the float64 copies, and one piece nearly always shows that a face has area


@dataclass(frozen=True)
class Similarity:
    """unit = (point - centre) * scale; float64 numbers, so that large coordinates survive the way back."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def apply(self, points: Tensor) -> Tensor:
        """User frame -> unit cube; points (..., 3), computed in float64, returned in float32."""
        centre = points.new_tensor(self.centre, dtype=torch.float64)
        return ((points.double() - centre) * self.scale).float()

    def invert(self, points: Tensor) -> Tensor:
        """Unit cube -> user frame; points (..., 3), computed in float64, returned in float32."""
        centre = points.new_tensor(self.centre, dtype=torch.float64)
        return (points.double() / self.scale + centre).float()


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh, valid by construction.

    Args:
        vertices: (V, 3) float32, finite.
        faces: (F, 3) int64, 0 <= index < V, at least one face of non-zero area, extent above zero.
        name: where it came from, for messages.

    Raises:
        BadMesh: naming the first rule that the arrays break.
    """

    vertices: Tensor
    faces: Tensor
    name: str = "mesh"

    def __post_init__(self) -> None:
        vertices, faces = self.vertices, self.faces
        if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
            raise BadMesh(
                f"expected vertices (V, 3) and faces (F, 3), got {tuple(vertices.shape)} and {tuple(faces.shape)}.",
                where=self.name,
            )
        object.__setattr__(self, "vertices", vertices.to(torch.float32))
        object.__setattr__(self, "faces", faces.to(torch.int64))
        self._validate()

    def _validate(self) -> None:
        vertices, faces = self.vertices, self.faces
        if len(faces) == 0:
            raise BadMesh("the mesh has no faces.", where=self.name, hint="export triangles, not only points or lines.")
        low, high = faces.aminmax()
        if int(low) < 0 or int(high) >= len(vertices):
            bad = int(((faces < 0) | (faces >= len(vertices))).any(1).sum())
            worst = int(low) if int(low) < 0 else int(high)
            raise BadMesh(
                f"{bad:,} of {len(faces):,} faces point outside the vertices (index {worst} of {len(vertices):,}).",
                where=self.name,
                hint="re-export the file; its face list is damaged.",
            )
        finite = torch.isfinite(vertices).all(1)
        if not bool(finite.all()):
            raise BadMesh(
                f"{int((~finite).sum()):,} of {len(vertices):,} vertices are NaN or infinite.",
                where=self.name,
                hint="remove those vertices and their faces in a mesh editor.",
            )
        low_corner, high_corner = self.bounds()
        extent = high_corner.double() - low_corner.double()
        if not float(extent.max()) > 0.0:
            raise BadMesh("all vertices lie in one point: the mesh has zero extent.", where=self.name)
        if not _LEAST < float(extent.max()) < _MOST:
            raise BadMesh(
                f"the mesh measures {float(extent.max()):.3g}: its areas do not fit float32.",
                where=self.name,
                hint=f"scale it to between {_LEAST:g} and {_MOST:g}.",
            )
        if not any(bool(self._cross(piece).any()) for piece in faces.split(_PIECE)):
            raise BadMesh(f"all {len(faces):,} faces are degenerate (zero area).", where=self.name)

    def _cross(self, faces: Tensor) -> Tensor:
        """(F, 3) float64 cross products of two edges; their norm squares an area, which leaves float32 below 1e-19."""
        corners = self.vertices[faces].double()
        return torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    @classmethod
    def from_arrays(cls, vertices: np.ndarray, faces: np.ndarray, name: str = "mesh") -> Mesh:
        """From numpy arrays of any float and integer type."""
        return cls(
            torch.from_numpy(np.ascontiguousarray(vertices, np.float32)),
            torch.from_numpy(np.ascontiguousarray(faces, np.int64)),
            name,
        )

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) float32 and faces (F, 3) int64 as numpy arrays."""
        return self.vertices.cpu().numpy(), self.faces.cpu().numpy()

    def to(self, device: torch.device | str) -> Mesh:
        """The same mesh on another device."""
        return self._replace(self.vertices.to(device), self.faces.to(device))

    def _replace(self, vertices: Tensor, faces: Tensor) -> Mesh:
        """A copy that skips validation: only for changes that cannot break a valid mesh."""
        mesh = object.__new__(Mesh)
        for key, value in (("vertices", vertices), ("faces", faces), ("name", self.name)):
            object.__setattr__(mesh, key, value)
        return mesh

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest corner (3,), (3,) of the vertices that faces use."""
        used = torch.zeros(len(self.vertices), dtype=torch.bool, device=self.vertices.device)
        used[self.faces.reshape(-1)] = True
        corners = self.vertices if bool(used.all()) else self.vertices[used]
        return corners.amin(0), corners.amax(0)

    def normalise(self, margin: float = 0.025) -> tuple[Mesh, Similarity]:
        """Into the cube [-0.5, 0.5]^3: the box's centre to the origin, its longest side to 1 - 2 * margin.

        Returns the mesh and the similarity that did it, whose `invert` restores the user's scale and position.
        """
        if not 0.0 <= margin < 0.5:
            raise BadArgument(f"margin {margin} is outside [0, 0.5).", where="normalise")
        low, high = (corner.double().cpu() for corner in self.bounds())
        centre = (low + high) / 2
        frame = Similarity(
            (float(centre[0]), float(centre[1]), float(centre[2])), (1.0 - 2.0 * margin) / float((high - low).max())
        )
        return self._replace(frame.apply(self.vertices), self.faces), frame

    def transformed(self, frame: Similarity, *, inverse: bool = False) -> Mesh:
        """The mesh moved by a similarity, or by its inverse."""
        return self._replace(frame.invert(self.vertices) if inverse else frame.apply(self.vertices), self.faces)

    def face_areas(self) -> Tensor:
        """(F,) float32 areas in squared units of the vertices."""
        return torch.cat([self._cross(piece).norm(dim=1).float() / 2 for piece in self.faces.split(_PIECE)])

    def face_normals(self) -> Tensor:
        """(F, 3) float32 unit normals, counter-clockwise outward; zero for degenerate faces."""
        pieces = (self._cross(piece) for piece in self.faces.split(_PIECE))
        return torch.cat([torch.nn.functional.normalize(piece, dim=1, eps=1e-300).float() for piece in pieces])

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points uniform by area: (count, 3) float32 positions and (count,) int64 faces that they lie on."""
        areas = self.face_areas().double().cumsum(0)
        pick = torch.rand(count, generator=generator, device=areas.device, dtype=torch.float64) * areas[-1]
        face = torch.searchsorted(areas, pick, right=True).clamp_(max=len(areas) - 1)
        weights = torch.rand(count, 2, generator=generator, device=areas.device)
        root = weights[:, :1].sqrt()
        barycentric = torch.cat([1 - root, root * (1 - weights[:, 1:]), root * weights[:, 1:]], 1)
        # not einsum, which autocast rounds to bf16
        return (barycentric[:, :, None] * self.vertices[self.faces[face]]).sum(1), face

    def edge_counts(self) -> Tensor:
        """(E,) how many faces use each undirected edge."""
        ends = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]).sort(1).values
        return torch.unique(ends[:, 0] * len(self.vertices) + ends[:, 1], return_counts=True)[1]

    def is_watertight(self) -> bool:
        """Whether every edge belongs to exactly two faces."""
        return bool((self.edge_counts() == 2).all())
