"""What a codec is. Everything else in the library is written against this page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from shapecodec.field import Field
from shapecodec.latents import Latents
from shapecodec.mesh import Mesh


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and its named terms (0-dim tensors, detached) for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Codec(nn.Module, ABC):
    """A mesh autoencoder. Meshes given to `prepare` lie in the unit cube (`Mesh.normalise`).

    A codec is built from one frozen configuration dataclass, `config`; `kind` names its class in codec folders.
    """

    kind: str
    config: Any

    @abstractmethod
    def prepare(self, mesh: Mesh, rng: torch.Generator | None = None, *, resolution: int | None = None) -> Any:
        """What `encode` reads, derived on the mesh's device. The same function offline and in training."""

    @abstractmethod
    def encode(self, inputs: Any, rng: torch.Generator | None = None) -> Latents:
        """Latents; with `rng` a sample of the posterior, else its mean."""

    @abstractmethod
    def decode(self, latents: Latents) -> Field:
        """The field of a batch of one."""

    @abstractmethod
    def loss(self, batch: Any, step: int, rng: torch.Generator) -> Loss:
        """Training loss on what `prepare` returned, or on a packed batch of it; schedules over `step` live here."""

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def reconstruct(self, mesh: Mesh, *, resolution: int | None = None) -> Mesh:
        """Mesh -> latents -> mesh, in the user's own scale and position."""
        unit, frame = mesh.normalise()
        latents = self.encode(self.prepare(unit.to(self.device), resolution=resolution))
        return self.decode(replace(latents, frames=(frame,))).to_mesh().transformed(frame, inverse=True)
