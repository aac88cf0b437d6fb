"""From an error to a colour: grey clay where all is well, through yellow and red to violet."""

from __future__ import annotations

import numpy as np
import torch

# sRGB stops, evenly spaced. Grey at zero, so that a good reconstruction looks like the clay of the other rows.
STOPS = np.array(
    [[204, 207, 212], [214, 208, 170], [247, 201, 85], [243, 137, 54], [214, 58, 49], [150, 18, 80], [74, 10, 84]],
    np.float64,
)


def error_colours(errors: torch.Tensor, largest: float) -> torch.Tensor:
    """(V, 3) uint8 sRGB of errors (V,) between 0 and `largest`; larger ones have the last colour."""
    place = np.clip(errors.detach().cpu().double().numpy() / largest, 0, 1) * (len(STOPS) - 1)
    stops = np.arange(len(STOPS))
    channels = [np.interp(place, stops, STOPS[:, k]) for k in range(3)]
    return torch.from_numpy(np.stack(channels, 1).round().astype(np.uint8))
