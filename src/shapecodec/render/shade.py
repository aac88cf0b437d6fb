"""Studio light on what the rasteriser saw: three lamps that move with the camera, a soft sky, grey clay."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from PIL import Image

from shapecodec.camera import Camera
from shapecodec.mesh import Mesh
from shapecodec.ops.vertex_normals import vertex_normals
from shapecodec.render.raster import Visible, in_bands, rasterise

CLAY = (201, 203, 208)
PAPER = (250, 250, 251)
SAMPLES = 2  # rays a pixel and axis
CREASE_COSINE = 0.80  # 37 degrees: a corner whose face leans more than this from the vertex normal is drawn as an edge

# Direction towards the lamp in the view frame (x right, y up, z to the viewer), and its linear RGB strength.
_LAMPS = np.array(
    [
        [-0.50, 0.72, 0.48, 0.98, 0.96, 0.92],  # key, upper left, warm
        [0.80, 0.15, 0.58, 0.16, 0.18, 0.21],  # fill, right, cool
        [0.10, 0.35, -0.93, 0.22, 0.23, 0.25],  # rim, behind
    ],
    np.float32,
)
_SKY, _GROUND = np.float32(0.20), np.float32(0.07)


def render(
    mesh: Mesh,
    camera: Camera,
    *,
    colours: torch.Tensor | None = None,
    smooth: bool = True,
    background: tuple[int, int, int] | None = PAPER,
) -> Image.Image:
    """A picture of a mesh, `SAMPLES`^2 rays a pixel.

    Args:
        mesh: in the camera's world.
        camera: gives the size in pixels.
        colours: (V, 3) uint8 sRGB of the vertices; None is grey clay.
        smooth: interpolate vertex normals except at creases; else flat faces.
        background: sRGB; None gives a picture with alpha, the share of the rays that hit.
    """
    large = camera.enlarged(SAMPLES)
    return shade(mesh, large, rasterise(mesh, large), colours=colours, smooth=smooth, background=background)


def shade(
    mesh: Mesh,
    camera: Camera,
    visible: Visible,
    *,
    normals: torch.Tensor | None = None,
    colours: torch.Tensor | None = None,
    smooth: bool = True,
    background: tuple[int, int, int] | None = PAPER,
) -> Image.Image:
    """The second half of `render`: `camera` is the enlarged one that `visible` was made with; the image is reduced.

    `normals` (V, 3) may be given where several pictures of one mesh are made.
    """
    mesh = mesh.to("cpu")
    if normals is None:
        normals = vertex_normals(mesh.vertices, mesh.faces)
    palette = colours.cpu().numpy() if colours is not None else np.array([CLAY], np.uint8)
    image = np.zeros((*visible.face.shape, 3), np.float32)
    if background is not None:
        image[visible.face < 0] = _linear(np.array(background, np.uint8))
    scene = (
        visible.face,
        visible.weights,
        mesh.vertices.numpy(),
        normals.cpu().numpy(),
        mesh.faces.numpy(),
        camera.view.numpy(),
        _linear(palette),
        np.float32(CREASE_COSINE if smooth else 2.0),
        camera.projection[3, 2].item() != 0,
        _unit_lamps(),
    )
    in_bands(len(image), lambda top, bottom: _shade(*scene, top, bottom, image))
    height, width = image.shape[0] // SAMPLES, image.shape[1] // SAMPLES
    mean = image.reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
    if background is not None:
        return Image.fromarray(_encoded(mean))
    share = (visible.face >= 0).reshape(height, SAMPLES, width, SAMPLES).mean((1, 3), dtype=np.float32)[..., None]
    alpha = np.round(255 * share).astype(np.uint8)
    return Image.fromarray(np.concatenate([_encoded(mean / np.maximum(share, 1e-6)), alpha], 2))


def _unit_lamps() -> np.ndarray:
    lamps = _LAMPS.copy()
    lamps[:, :3] /= np.linalg.norm(lamps[:, :3], axis=1, keepdims=True)
    return lamps


def _linear(colour: np.ndarray) -> np.ndarray:
    """sRGB uint8 -> linear float32 (IEC 61966-2-1)."""
    c = colour.astype(np.float32) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoded(light: np.ndarray) -> np.ndarray:
    """Linear float32 -> sRGB uint8."""
    c = np.clip(light, 0, 1)
    return np.round(255 * np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)).astype(np.uint8)


@njit(cache=True, nogil=True)
def _shade(
    face: np.ndarray,
    weights: np.ndarray,
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    view: np.ndarray,
    colours: np.ndarray,
    crease: np.float32,
    pinhole: bool,
    lamps: np.ndarray,
    top: int,
    bottom: int,
    image: np.ndarray,
) -> None:
    """Linear light of the rows from `top` up to `bottom` into `image` (H, W, 3) float32."""
    for i in range(top, bottom):
        for j in range(face.shape[1]):
            f = face[i, j]
            if f < 0:
                continue
            point, normal, flat = np.zeros(3), np.zeros(3), np.zeros(3)
            colour = np.zeros(3, np.float32)
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for k in range(3):
                m, n = (k + 1) % 3, (k + 2) % 3
                flat[k] = (vertices[b, m] - vertices[a, m]) * (vertices[c, n] - vertices[a, n]) - (
                    vertices[b, n] - vertices[a, n]
                ) * (vertices[c, m] - vertices[a, m])
            flat /= max(np.sqrt((flat * flat).sum()), 1e-30)
            for corner in range(3):
                v, weight = faces[f, corner], weights[i, j, corner]
                lean = flat[0] * normals[v, 0] + flat[1] * normals[v, 1] + flat[2] * normals[v, 2]
                for k in range(3):
                    point[k] += weight * vertices[v, k]
                    normal[k] += weight * (normals[v, k] if lean >= crease else flat[k])
                    colour[k] += weight * colours[v if len(colours) > 1 else 0, k]
            towards, local = np.zeros(3), np.zeros(3)
            for k in range(3):
                local[k] = view[k, 0] * normal[0] + view[k, 1] * normal[1] + view[k, 2] * normal[2]
                towards[k] = -(view[k, 0] * point[0] + view[k, 1] * point[1] + view[k, 2] * point[2] + view[k, 3])
            if not pinhole:
                towards[0], towards[1], towards[2] = 0.0, 0.0, 1.0
            local /= max(np.sqrt((local * local).sum()), 1e-30)
            towards /= max(np.sqrt((towards * towards).sum()), 1e-30)
            facing = (local * towards).sum()
            if facing < 0:  # a sheet has two lit sides, and an extracted layer may face either way
                local, facing = -local, -facing
            _light(local, towards, facing, colour, lamps, image[i, j])


@njit(cache=True, nogil=True)
def _light(
    normal: np.ndarray, towards: np.ndarray, facing: float, colour: np.ndarray, lamps: np.ndarray, out: np.ndarray
) -> None:
    """Lambert with a slight wrap, a broad highlight, a sky above a darker ground, and a soft Fresnel rim."""
    sky = _GROUND + (_SKY - _GROUND) * (0.5 + 0.5 * normal[1])
    rim = (1.0 - facing) ** 4 * 0.10
    for k in range(3):
        out[k] = colour[k] * sky + rim
    for lamp in range(len(lamps)):
        cosine = normal[0] * lamps[lamp, 0] + normal[1] * lamps[lamp, 1] + normal[2] * lamps[lamp, 2]
        diffuse = max((cosine + 0.15) / 1.15, 0.0)
        halfway = 0.0
        length = 0.0
        for k in range(3):
            h = lamps[lamp, k] + towards[k]
            halfway += normal[k] * h
            length += h * h
        shine = 0.06 * max(halfway / max(np.sqrt(length), 1e-9), 0.0) ** 24 if cosine > 0 else 0.0
        for k in range(3):
            out[k] += lamps[lamp, 3 + k] * (colour[k] * diffuse + shine)
