"""Normals as they are seen: mean squared errors between pictures of normals from many views.

NMSE and SNE of LoG3D's tables are such errors, over the whole shape and near its sharp edges; both go back to Dora (Chen et
al. 2025). Neither paper publishes the views, the resolution or how the edges are found, so the protocol here fixes them, its
name is in every result, and values compare with one another but not with the papers' tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from shapecodec.camera import Camera
from shapecodec.evaluate.canny import canny, crease_response, dilate
from shapecodec.evaluate.views import Views
from shapecodec.mesh import Mesh
from shapecodec.render.raster import nearest_faces

_WORDS = {
    "normals": "Unit normals of the faces, not interpolated, at the centres of the pixels; components in [-1, 1]. Where "
    "there is no surface the normal is zero.",
    "nmse": "Squared difference of the normals, mean over the three components and over the pixels where either mesh is "
    "seen, then mean over the views. A pixel that only one mesh covers costs 1/3, opposite normals cost 4/3.",
    "sne": "The same over the pixels of the mask only; views without a mask are left out.",
    "mask": "Edges in the reference's normal map (Canny), normals turned to the camera, so that winding makes no edge; "
    "outlines count as edges. Thresholds are the gradients at creases of the stated angles; grown by squares.",
    "unsigned": "The same with the sign of each normal chosen so that they agree best: winding does not count.",
    "both": "The same over the pixels where both meshes are seen: surfaces without outlines and holes.",
    "overlap": "Pixels where both meshes are seen over pixels where either is, all views together.",
    "floor": "The reference against itself with every face cut into four: what its rasterisation alone costs.",
}


@dataclass(frozen=True)
class NormalMapProtocol:
    """One way to compare pictures of normals.

    Args:
        name: printed beside every number.
        views: directions, resolution and framing; framed on the reference.
        sigma: of the Gaussian before edges are sought, in pixels.
        low_degrees: a crease of this angle continues an edge.
        high_degrees: a crease of this angle begins one.
        dilation: pixels by which the mask reaches beyond an edge.
        definitions: key of the result -> what it is, in words.
    """

    name: str
    views: Views
    sigma: float
    low_degrees: float
    high_degrees: float
    dilation: int
    definitions: Mapping[str, str]

    def mask(self) -> dict[str, float]:
        """JSON-ready parameters of the edge mask."""
        return {
            "sigma": self.sigma,
            "low_degrees": self.low_degrees,
            "high_degrees": self.high_degrees,
            "dilation": self.dilation,
        }


NORMALS = NormalMapProtocol("normals-v1", Views(24, 512), 1.0, 15.0, 30.0, 2, MappingProxyType(_WORDS))
NORMAL_PROTOCOLS: Mapping[str, NormalMapProtocol] = MappingProxyType({NORMALS.name: NORMALS})


class _Shape(NamedTuple):
    """A mesh on the CPU with its face normals (F, 3) float32."""

    mesh: Mesh
    normals: np.ndarray


def normal_map_scores(
    prediction: Mesh, reference: Mesh, protocol: NormalMapProtocol = NORMALS, *, floor: bool = True
) -> dict[str, Any]:
    """Compare normals as seen from all sides: NMSE and SNE.

    Pictures are drawn on the CPU, one view a thread; the result does not depend on the number of threads. What of the
    prediction lies outside the reference's pictures is not seen.

    Args:
        prediction: in the reference's own scale and position, wherever that is.
        reference: what the prediction should be; it gives the pictures' frame and the edges.
        protocol: views, resolution and mask.
        floor: also measure the reference against itself, which costs about as much again.

    Returns:
        JSON-ready numbers:
        protocol, its name; views {name, count, resolution, margin, projection}; mask {sigma, low_degrees, high_degrees,
        dilation};
        nmse, sne as the faces are wound, nmse_unsigned, sne_unsigned; each None where no picture has a pixel for it; both, the
        same four where both meshes are seen;
        overlap, and mask_share, the part of the seen pixels that is in the mask, all views together;
        floor {nmse, sne, nmse_unsigned, sne_unsigned}, or None if not asked for.
    """
    shown, given = _shape(prediction), _shape(reference)
    again = _shape(_quartered(given.mesh)) if floor else None

    def look(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        seen = nearest_faces(given.mesh, camera, bands=1)[0]
        mask = _edge_mask(seen, given.normals, camera, protocol)
        least = np.zeros((2, 2, 3)) if again is None else _sums(again, camera, seen, given.normals, mask)
        return _sums(shown, camera, seen, given.normals, mask), least

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        sums = np.array(list(pool.map(look, protocol.views.cameras(given.mesh))))
    (union, masked), (both, _) = sums[:, 0, :, :, 0].sum(0).tolist()
    return {
        "protocol": protocol.name,
        "views": protocol.views.as_dict(),
        "mask": protocol.mask(),
        **_scores(sums[:, 0, 0]),
        "both": _scores(sums[:, 0, 1]),
        "overlap": both / union if union else None,
        "mask_share": masked / union if union else None,
        "floor": _scores(sums[:, 1, 0]) if floor else None,
    }


def _shape(mesh: Mesh) -> _Shape:
    mesh = mesh.to("cpu")
    return _Shape(mesh, mesh.face_normals().numpy())


def _quartered(mesh: Mesh) -> Mesh:
    """Every face cut into four at the middles of its edges; same surface, other triangles."""
    count, corners = len(mesh.vertices), mesh.faces
    ends = torch.stack([corners, corners.roll(-1, 1)], -1).sort(-1).values
    keys, middles = torch.unique(ends[..., 0] * count + ends[..., 1], return_inverse=True)
    middle = (mesh.vertices[keys // count] + mesh.vertices[keys % count]) / 2
    (a, b, c), (ab, bc, ca) = corners.unbind(1), (middles + count).unbind(1)
    faces = torch.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], 1).reshape(-1, 3)
    return Mesh(torch.cat([mesh.vertices, middle]), faces, mesh.name)


def _edge_mask(seen: np.ndarray, normals: np.ndarray, camera: Camera, protocol: NormalMapProtocol) -> np.ndarray:
    """(H, W) bool: what lies near an edge of a picture of faces (H, W)."""
    image = np.zeros((*seen.shape, 3), np.float32)
    _paint(seen, normals, -camera.view[2, :3].numpy(), image)
    low, high = (crease_response(degrees, protocol.sigma) for degrees in (protocol.low_degrees, protocol.high_degrees))
    return dilate(canny(image, protocol.sigma, low, high), protocol.dilation)


@njit(cache=True, nogil=True)
def _paint(seen: np.ndarray, normals: np.ndarray, forward: np.ndarray, image: np.ndarray) -> None:
    """Normals, turned against the direction of sight `forward`, into `image` (H, W, 3)."""
    for i in range(seen.shape[0]):
        for j in range(seen.shape[1]):
            f = seen[i, j]
            if f >= 0:
                away = normals[f, 0] * forward[0] + normals[f, 1] * forward[1] + normals[f, 2] * forward[2] > 0
                for k in range(3):
                    image[i, j, k] = -normals[f, k] if away else normals[f, k]


def _sums(shape: _Shape, camera: Camera, seen: np.ndarray, normals: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(2, 2, 3) of one view: where either or both are seen; everywhere or in the mask; pixels, signed and unsigned errors."""
    sums = np.zeros((2, 2, 3))
    _add_errors(nearest_faces(shape.mesh, camera, bands=1)[0], shape.normals, seen, normals, mask, sums)
    return sums


@njit(cache=True, nogil=True)
def _add_errors(
    shown: np.ndarray, one: np.ndarray, seen: np.ndarray, two: np.ndarray, mask: np.ndarray, sums: np.ndarray
) -> None:
    for i in range(seen.shape[0]):
        for j in range(seen.shape[1]):
            f, g = shown[i, j], seen[i, j]
            if f < 0 and g < 0:
                continue
            signed, turned = 0.0, 0.0
            for k in range(3):
                x = np.float64(one[f, k]) if f >= 0 else 0.0
                y = np.float64(two[g, k]) if g >= 0 else 0.0
                signed += (x - y) * (x - y) / 3
                turned += (x + y) * (x + y) / 3
            unsigned = min(signed, turned)
            for where in range(2 if f >= 0 and g >= 0 else 1):
                for part in range(2 if mask[i, j] else 1):
                    sums[where, part, 0] += 1
                    sums[where, part, 1] += signed
                    sums[where, part, 2] += unsigned


def _scores(sums: np.ndarray) -> dict[str, float | None]:
    """Means over the views (N, 2, 3) of the means over their pixels."""
    scores: dict[str, float | None] = {}
    for key, part, error in (("nmse", 0, 1), ("sne", 1, 1), ("nmse_unsigned", 0, 2), ("sne_unsigned", 1, 2)):
        counted = sums[sums[:, part, 0] > 0, part]
        scores[key] = float((counted[:, error] / counted[:, 0]).mean()) if len(counted) else None
    return scores
