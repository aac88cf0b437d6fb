"""Pictures without a background that carry one along."""

import numpy as np
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.mesh import Mesh
from shapecodec.render import render


def linear(colour: np.ndarray) -> np.ndarray:
    c = colour / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def test_rim_keeps_the_colour_of_another_background():
    """Put on a background in linear light, a picture with alpha is the picture drawn before it, up to rounding."""
    vertices = torch.tensor([[0.0, 0.5, 0.0], [-0.4, -0.3, 0.2], [0.4, -0.3, 0.2], [0.0, -0.3, -0.4]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    camera = Camera.perspective(orbit(30.0, 20.0, 3.4), (0, 0, 0), 24.0, (80, 60))
    free = np.asarray(render(mesh, camera, background=None)).astype(np.float64)
    alpha = free[..., 3:] / 255
    assert free.shape == (60, 80, 4) and ((alpha > 0) & (alpha < 1)).sum() > 30 and (alpha == 1).sum() > 400
    for ground in ((250, 250, 251), (20, 22, 26)):
        drawn = np.asarray(render(mesh, camera, background=ground)).astype(np.float64)
        mixed = alpha * linear(free[..., :3]) + (1 - alpha) * linear(np.array(ground))
        assert np.abs(mixed - linear(drawn)).max() < 0.012  # a step of 8 bits near white is 0.009
