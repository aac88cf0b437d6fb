"""What a generator is: a module that makes latents out of noise, for one codec with certain weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from shapecodec.codecs.base import Codec, Trainable
from shapecodec.errors import BadArgument
from shapecodec.generate.guidance import Guidance
from shapecodec.io.codec_folder import save_codec_folder
from shapecodec.io.config_json import config_to_json
from shapecodec.latents import Latents


class Generator(Trainable, ABC):
    """Its `config` names the codec whose latents it makes (`codec`), the hash of that codec's weights and the classes.

    `codec_hash` of the generator itself is that of its own weights, as it is for every module that is stored in a folder.
    """

    export_folder = "generator"

    @abstractmethod
    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        first: int = 0,
        labels: Sequence[int | None] | None = None,
        steps: int = 18,
        guidance: Guidance | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Latents:
        """Latents of `count` new shapes. Shape i starts from noise that is a function of (seed, first + i)."""

    @abstractmethod
    def evaluations(self, steps: int) -> int:
        """How often `sample` calls `progress`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what it can be asked for."""
        return tuple(self.config.classes)

    def label_of(self, category: str) -> int:
        """The number of a class.

        Raises:
            BadArgument: it was not trained on such a class.
        """
        if category not in self.classes:
            hint = f"one of {', '.join(self.classes)}." if self.classes else "leave --category out."
            raise BadArgument(f"the generator knows no category '{category}'.", where="--category", hint=hint)
        return self.classes.index(category)

    def check_codec(self, codec: Codec) -> None:
        """Refuse a codec with other weights than those whose latents this generator has learnt.

        Raises:
            BadArgument: naming both.
        """
        if codec.codec_hash != self.config.codec_hash:
            raise BadArgument(
                f"the generator makes latents of the codec '{self.config.codec}' with weights {self.config.codec_hash}; "
                f"'{codec.name or codec.kind}' has {codec.codec_hash or 'unsaved weights'}.",
                where="generate",
                hint="give the folder of that codec, or train a generator for this one.",
            )

    def save(self, folder: str | Path, *, name: str = "", dtype: str = "float32", card: str | None = None) -> str:
        """Write config.json, safetensors weights and README.md; returns the hash of the stored weights. See `Codec.save`."""
        settings: dict[str, Any] = config_to_json(self.config)
        name = name or self.name
        digest = save_codec_folder(
            self, folder, kind=self.kind, config=settings, what="generator", name=name, dtype=dtype, card=card
        )
        if dtype == "float32":
            self.codec_hash = digest
        return digest

    def _autocast(self) -> torch.autocast:
        """bf16 where the hardware is made for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
