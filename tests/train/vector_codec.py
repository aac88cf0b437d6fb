"""A codec small enough to train in milliseconds, and a source of vectors given by their global index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shapecodec.codecs.base import Codec, Loss
from shapecodec.rng import rng
from shapecodec.train.config import RunConfig

TIMES = ("seconds", "steps_per_second", "tokens_per_second")


@dataclass(frozen=True)
class VectorConfig:
    width: int = 16
    hidden: int = 8
    noise: float = 0.0
    bad_steps: tuple[int, ...] = ()


class VectorCodec(Codec):
    kind = "vector"

    def __init__(self, config: VectorConfig) -> None:
        super().__init__()
        self.config = config
        self.down = nn.Linear(config.width, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.up = nn.Linear(config.hidden, config.width)
        self.register_buffer("scale", torch.ones(()))

    def prepare(self, mesh, rng=None, *, resolution=None):
        raise NotImplementedError

    def encode(self, inputs, rng=None):
        raise NotImplementedError

    def decode(self, latents):
        raise NotImplementedError

    def estimate_memory(self, mesh, resolution):
        return 0

    def loss(self, batch, step, rng):
        hidden = self.norm(torch.tanh(self.down(batch.vectors)))
        if self.config.noise:
            hidden = hidden + self.config.noise * torch.randn(hidden.shape, generator=rng, device=rng.device)
            hidden = nn.functional.dropout(hidden, self.config.noise, self.training)
        error = (self.up(hidden) * self.scale - batch.vectors).square().mean()
        size = hidden.square().mean()
        total = error + 1e-3 * size
        if step in self.config.bad_steps:
            total = total * float("nan")
        return Loss(total, {"error": error.detach(), "size": size.detach()})


@dataclass(frozen=True)
class Batch:
    vectors: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class VectorSource:
    """Item i is a function of (seed, i); step s holds items s * size to (s + 1) * size, in contiguous shards."""

    size: int = 8
    width: int = 16
    seed: int = 0

    @property
    def config(self):
        return {"size": self.size, "width": self.width, "seed": self.seed}

    def indices(self, step, rank, world):
        assert self.size % world == 0
        share = self.size // world
        return range(step * self.size + rank * share, step * self.size + (rank + 1) * share)

    def batch(self, step, rank, world, device):
        rows = [
            torch.randn(self.width, generator=rng(self.seed, i, 0, "item")) for i in self.indices(step, rank, world)
        ]
        return Batch(torch.stack(rows).to(device), len(rows))


def make_codec(config=None, seed=0):
    torch.manual_seed(seed)
    return VectorCodec(config or VectorConfig())


def build(config):
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config["codec"]["config"].items()}
    return make_codec(VectorConfig(**values)), VectorSource(**config["source"]), RunConfig.from_json(config["run"])


def read_log(folder, *, timeless=True):
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not (timeless and k in TIMES)} for line in lines]


def newest(folder):
    return max((Path(folder) / "checkpoints").glob("step-*"))


def tensor_bytes(folder):
    return {path.name: path.read_bytes() for path in newest(folder).glob("*.safetensors")}
