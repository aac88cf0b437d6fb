"""On a GPU: the recorded, compiled step trains as the plain one does, and the same noise gives the same shape as on the CPU."""

import json
from dataclasses import replace

import pytest
import torch

from shapecodec.data.latent_cache import LatentCache, LatentSource, LatentSourceConfig
from shapecodec.generate.cascade import Cascade, standardise
from shapecodec.generate.dit import QKNormAttention
from shapecodec.generate.sets import PackedSets
from shapecodec.recipes import find_recipe
from shapecodec.train.loop import train

pytestmark = pytest.mark.gpu
LEVELS = {"tokens": (32, 128, 512), "latent": (32, 16, 8)}


def make(channels=128):
    torch.manual_seed(0)
    small = find_recipe("cascade-small").codec
    config = replace(small, codec_hash="test", classes=("a", "b"), channels=(channels,) * 3, depth=(2,) * 3, **LEVELS)
    return Cascade(config)


def source(device):
    sizes = zip(LEVELS["tokens"], LEVELS["latent"], strict=True)
    generator = torch.Generator().manual_seed(0)
    latents = tuple(standardise(torch.randn(8, 2, m, z, generator=generator)).half().to(device) for m, z in sizes)
    labels = torch.arange(8, device=device) % 2
    return LatentSource(
        LatentCache(latents, labels, ("a", "b"), tuple("abcdefgh"), 0), LatentSourceConfig(shapes=(64, 32, 16))
    )


def losses(device, folder, **settings):
    run = replace(
        find_recipe("cascade-small").run, steps=40, time_budget_s=None, warmup_steps=5, log_every=10, **settings
    )
    train(make(), source(device), run, folder, device=device)
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_recorded_step_learns_otherwise(device, tmp_path):
    plain = losses(device, tmp_path / "plain", compile=False, cuda_graphs=False)
    fast = losses(device, tmp_path / "fast", compile=True, cuda_graphs=True)
    assert plain[-1] < 0.97 * plain[0] and len(plain) == 4
    assert fast == pytest.approx(plain, rel=0.02)


def test_device_decides_the_shape(device):
    cascade = make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 / parameter.shape[-1] ** 0.5)
    here = cascade.eval().sample(2, seed=3, steps=4)
    there = cascade.to(device).sample(2, seed=3, steps=4)
    for a, b in zip(here.levels, there.levels, strict=True):  # the GPU's networks run in bfloat16
        assert float((a.feats - b.feats.cpu()).square().mean().sqrt()) < 0.15


def test_packed_attention_differs_from_each_alone(device):
    torch.manual_seed(0)
    attention = QKNormAttention(256, 4).to(device)
    sizes = [5000, 1, 77]
    x = torch.randn(sum(sizes), 256, device=device, requires_grad=True)
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    found, grads = [], []
    for precise in (False, True):
        with torch.autocast("cuda", torch.bfloat16, enabled=not precise):
            made = attention(x, PackedSets(offsets, device))
        x.grad = None
        made.float().square().sum().backward()
        found.append(made.float())
        grads.append(x.grad.clone())
    for a, b in (found, grads):
        assert float((a - b).norm() / b.norm()) < 0.02
    alone = torch.cat([attention(part, PackedSets(torch.tensor([0, len(part)]), device)) for part in x.split(sizes)])
    assert torch.allclose(alone, found[1], atol=1e-4)
