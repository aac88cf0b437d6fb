"""The specification of `vertex_normals` in torch; also the CUDA path, as integer atomics commute."""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION_BITS = 40  # of the largest face's doubled area: sums of up to 2^22 faces at a vertex stay exact


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """See the package."""
    corners = vertices[faces.long()]
    weighted = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    largest = weighted.abs().amax().clamp(min=torch.finfo(torch.float32).tiny).double()
    fixed = (weighted.double() / largest * 2.0**FRACTION_BITS).round().long()
    total = torch.zeros(len(vertices), 3, dtype=torch.int64, device=vertices.device)
    for corner in range(3):
        total.index_add_(0, faces[:, corner].long(), fixed)
    return torch.nn.functional.normalize(total.double(), dim=1).float()
