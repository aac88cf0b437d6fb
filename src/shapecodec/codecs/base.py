"""What a codec is. Everything else in the library is written against this page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from shapecodec.errors import BadArgument, BadLatents
from shapecodec.field import Field
from shapecodec.io.codec_folder import save_codec_folder
from shapecodec.io.config_json import config_to_json
from shapecodec.latents import Latents
from shapecodec.mesh import Mesh, Similarity


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and its named terms (0-dim tensors, detached) for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Trainable(nn.Module, ABC):
    """What the training loop needs: a module with a loss, built from one frozen configuration dataclass.

    `kind` names its class in folders and runs; `export_folder` is where a run leaves the averaged weights.
    """

    kind: str
    config: Any
    export_folder: str = "codec"
    name: str = ""  # of the folder that it was loaded from
    codec_hash: str = ""  # of the stored weights that it was loaded from or last saved to; latents carry it

    @abstractmethod
    def loss(self, batch: Any, step: int, rng: torch.Generator) -> Loss:
        """Training loss on a batch of its source; schedules over `step` live here."""

    def compiled_parts(self) -> Sequence[nn.Module]:
        """Modules that training compiles one by one, equal ones together; none: the loss is compiled as a whole."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device


class Codec(Trainable):
    """A mesh autoencoder. Meshes given to `prepare` lie in the unit cube (`normalise`)."""

    def normalise(self, mesh: Mesh) -> tuple[Mesh, Similarity]:
        """A user's mesh in the frame that `prepare` reads, a part of the unit cube, and the similarity that put it there."""
        return mesh.normalise()

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

    def remarks(self, inputs: Any) -> tuple[str, ...]:
        """What a user should know about a prepared mesh before trusting its latents; nothing for most meshes."""
        return ()

    def scale_tokens(self, factor: float) -> None:
        """Use another number of latent vectors than the codec was trained with.

        Raises:
            BadArgument: the codec's number follows from the mesh, or the factor is out of range.
        """
        raise BadArgument(f"the number of tokens of a '{self.kind}' codec follows from the mesh.", where="--tokens")

    @abstractmethod
    def estimate_memory(self, mesh: Mesh | None, resolution: int) -> int:
        """Bytes that reconstructing and measuring a mesh takes beside the weights, on this codec's device; None: a typical mesh.

        For refusing what cannot work: meant to be within a factor of 1.5. `mesh` lies in the unit cube.
        """

    @torch.inference_mode()
    def reconstruct(self, mesh: Mesh, *, resolution: int | None = None) -> Mesh:
        """Mesh -> latents -> mesh, in the user's own scale and position."""
        unit, frame = self.normalise(mesh)
        latents = self.encode(self.prepare(unit.to(self.device), resolution=resolution))
        return self.decode(replace(latents, frames=(frame,))).to_mesh().transformed(frame, inverse=True)

    def save(self, folder: str | Path, *, name: str = "", dtype: str = "float32", card: str | None = None) -> str:
        """Write config.json, safetensors weights and README.md; returns the hash of the stored weights.

        `dtype` float16 or bfloat16 halves the size; such a codec differs from the one in memory, so its hash does too.
        See `io.codec_folder.save_codec_folder`.
        """
        settings = config_to_json(self.config)
        name = name or self.name
        digest = save_codec_folder(self, folder, kind=self.kind, config=settings, name=name, dtype=dtype, card=card)
        if dtype == "float32":
            self.codec_hash = digest
        return digest

    @classmethod
    def load(cls, name_or_path: str | Path, device: torch.device | str = "cpu") -> Self:
        """A codec of this class from a bundled name, a folder, a run folder or a hub id; see `load_codec`."""
        from shapecodec.codecs.registry import load_codec  # which imports this module

        codec = load_codec(name_or_path, device)
        if not isinstance(codec, cls):
            raise BadArgument(f"'{name_or_path}' is a {type(codec).__name__}, not a {cls.__name__}.", where="load")
        return codec

    def check_latents(self, latents: Latents) -> None:
        """Refuse latents of another codec, or of other weights where both hashes are known."""
        if latents.codec and latents.codec != self.kind:
            raise BadLatents(f"the latents were made by a '{latents.codec}' codec, this is '{self.kind}'.")
        if latents.codec_hash and self.codec_hash and latents.codec_hash != self.codec_hash:
            raise BadLatents(
                f"the latents were made with weights {latents.codec_hash}, this codec has {self.codec_hash}.",
                hint="decode with the codec that encoded them.",
            )
