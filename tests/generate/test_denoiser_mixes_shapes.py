"""The transformer of the denoisers: packed against dense sets, order, shapes kept apart, the start as nothing."""

import pytest
import torch

from shapecodec.generate.dit import Dit, NoiseEmbedding
from shapecodec.generate.sets import DenseSets, PackedSets

DENSE = DenseSets()


def awake(module, seed=0):
    """The module with weights that are nowhere zero: at its start it answers 0 whatever it is asked."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return module.eval()


def made(**options):
    return awake(Dit(32, 6, 4, 3, context=8, cross_every=2, **options))


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def dit(request):
    return made(shared=request.param)


def inputs(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randn(size, 32, generator=generator) for size in sizes]
    return tokens, torch.randn(len(sizes), 32, generator=generator), torch.randn(len(sizes), 5, 8, generator=generator)


@torch.no_grad()
def test_packed_sets_differ_from_each_alone(dit):
    tokens, condition, context = inputs((7, 1, 12))
    packed = dit(torch.cat(tokens), condition, PackedSets(torch.tensor([0, 7, 8, 20]), "cpu"), context)
    alone = [dit(t[None], condition[i : i + 1], DENSE, context[i : i + 1])[0] for i, t in enumerate(tokens)]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)


@torch.no_grad()
def test_order_of_tokens_matters(dit):
    tokens, condition, context = inputs((9, 9))
    x, order = torch.stack(tokens), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(
        dit(x[:, order], condition, DENSE, context), dit(x, condition, DENSE, context)[:, order], atol=1e-5
    )


@torch.no_grad()
def test_context_and_condition_are_not_heard(dit):
    tokens, condition, context = inputs((9, 9))
    x = torch.stack(tokens)
    before = dit(x, condition, DENSE, context)
    for changed in (dit(x, condition + 0.1, DENSE, context), dit(x, condition, DENSE, context + 0.1)):
        assert float((changed - before).abs().min(-1).values.min()) > 0


def test_fresh_network_answers_something():
    tokens, condition, context = inputs((4, 4))
    fresh = Dit(32, 6, 4, 2, context=8)
    assert not fresh(torch.stack(tokens), condition, DENSE, context).any()


def test_gradients_of_packed_and_dense_differ():
    tokens, condition, context = inputs((6, 6))
    dit, grads = made(), []
    for x, sets in ((torch.stack(tokens), DENSE), (torch.cat(tokens), PackedSets(torch.tensor([0, 6, 12]), "cpu"))):
        dit.zero_grad()
        dit(x, condition, sets, context).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in dit.parameters()])
    for one, two in zip(*grads, strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_noise_levels_look_alike():
    embedding = awake(NoiseEmbedding(32))
    labels = torch.linspace(-1.6, 1.1, 64)
    distances = torch.cdist(embedding(labels), embedding(labels)) + 100 * torch.eye(64)
    assert float(distances.min()) > 0.01
