"""LaGeM and VecSet at small sizes: parameter counts, readings of eq. 8, equation 9, levels, noise, files, solids and sheets."""

import dataclasses

import pytest
import torch
from torch import nn

from shapecodec.codecs.lagem import Lagem, LagemConfig, OccupancyBatch, PointInputs
from shapecodec.codecs.lagem.inputs import RADIUS
from shapecodec.errors import BadArgument, BadLatents
from shapecodec.io.latent_file import load_latents, save_latents
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.recipes import find_recipe
from shapecodec.rng import rng

SMALL = LagemConfig(
    tokens=(4, 8, 16), latent=(8, 4, 4), channels=32, head_channels=16, depth=1, points=64, resolution=32
)
VECSET = dataclasses.replace(SMALL, tokens=(16,), latent=(4,), bottleneck="kl", depth=2)
SHAPENET = {"tokens": (32, 128, 512), "channels": 512}


def box(size=0.6, squeeze=1.0):
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3) * size * torch.tensor([1.0, squeeze, 1.0])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Mesh(corners, torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]), "box")


def make(config=SMALL):
    torch.manual_seed(0)
    return Lagem(config).eval()


def batch(config=SMALL, shapes=3, queries=24):
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(shapes, config.points, 3, generator=generator)
    order = torch.stack([torch.randperm(config.points, generator=generator) for _ in range(shapes)])
    inputs = PointInputs(points, order[:, : config.tokens[-1]], 32)
    places = torch.randn(shapes, queries, 3, generator=generator)
    return OccupancyBatch(inputs, places, places.norm(dim=2) < 1.2, queries // 2, (places.norm(dim=2) - 1.2).abs())


@pytest.mark.parametrize(
    ("millions", "config"),
    [
        (499.85, LagemConfig()),
        (125.09, LagemConfig(**SHAPENET, latent=(32, 16, 8))),
        (125.15, LagemConfig(**SHAPENET, latent=(64, 32, 16))),
        (106.13, LagemConfig(tokens=(512,), latent=(8,), channels=512, depth=24, bottleneck="kl")),
        (424.24, LagemConfig(tokens=(2048,), latent=(64,), channels=1024, depth=24, bottleneck="kl")),
    ],
)
def test_published_parameter_count_that_is_missed(millions, config):
    with torch.device("meta"):
        count = sum(p.numel() for p in Lagem(config).parameters())
    assert round(count / 1e6, 2) == millions


def test_small_recipes_that_are_not_comparable():
    recipes = [find_recipe(name) for name in ("lagem-small", "vecset-small")]
    numbers = [sum(a * b for a, b in zip(r.codec.tokens, r.codec.latent, strict=True)) for r in recipes]
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Lagem(r.codec).parameters()) for r in recipes]
    assert numbers[0] == numbers[1] and abs(counts[0] / counts[1] - 1) < 0.02
    assert recipes[0].source == recipes[1].source and recipes[0].run == recipes[1].run


def test_input_that_enters_twice_where_equation_8_has_it_once():
    once, twice = make(), make(dataclasses.replace(SMALL, doubled_input=True))
    levels = [torch.randn(2, count, 32, generator=torch.Generator().manual_seed(count)) for count in SMALL.tokens]
    with torch.no_grad():
        coarse = once.decoder.stages[0](levels[0])
        mixed = once.decoder.upsample[0](levels[1], coarse)
        torch.testing.assert_close(once.decoder(levels)[1], once.decoder.stages[1](mixed))
        torch.testing.assert_close(twice.decoder(levels)[1], twice.decoder.stages[1](levels[1] + mixed))
        assert not torch.allclose(once.decoder(levels)[1], twice.decoder(levels)[1])


def test_answers_that_are_not_equation_9():
    """One cross attention a level with its output projection, concatenated, one linear layer: written out."""
    codec = make()
    features = [torch.randn(2, count, 32, generator=torch.Generator().manual_seed(count)) for count in SMALL.tokens]
    asked = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    parts = []
    for level, feats in zip(codec.head.levels, features, strict=True):
        attention = level.attention
        q = attention.query(nn.functional.layer_norm(asked, (32,), level.norm.weight, level.norm.bias))
        normed = nn.functional.layer_norm(feats, (32,), level.norm_context.weight, level.norm_context.bias)
        k, v = attention.key_value(normed).chunk(2, -1)
        q, k, v = (t.unflatten(2, (2, 16)).transpose(1, 2) for t in (q, k, v))
        shares = (q @ k.mT / 4).softmax(-1)
        parts.append(attention.out((shares @ v).transpose(1, 2).flatten(2)))
    wanted = codec.head.out(torch.cat(parts, 2))[..., 0]
    torch.testing.assert_close(codec.head(asked, codec.head.memory(features)), wanted, atol=1e-5, rtol=1e-5)


def test_latents_that_are_not_standardised():
    codec = make()
    latents = codec.encode(batch().inputs)
    assert [level.feats.shape for level in latents.levels] == [(12, 8), (24, 4), (48, 4)]
    assert latents.levels[0].offsets.tolist() == [0, 4, 8, 12]
    for level in latents.levels:
        torch.testing.assert_close(level.feats.mean(1), torch.zeros(len(level.feats)), atol=1e-5, rtol=0)
        torch.testing.assert_close(level.feats.var(1, correction=0), torch.ones(len(level.feats)), atol=1e-3, rtol=0)
    again = codec.bottlenecks[0].standardise(latents.levels[0].feats)
    torch.testing.assert_close(again, latents.levels[0].feats, atol=1e-3, rtol=0)


def test_points_in_another_order_that_give_other_latents():
    codec, one = make(), batch().inputs
    turn = torch.randperm(SMALL.points, generator=torch.Generator().manual_seed(5))
    back = torch.argsort(turn)
    two = PointInputs(one.points[:, turn], back[one.order], 32)
    for a, b in zip(codec.encode(one).levels, codec.encode(two).levels, strict=True):
        torch.testing.assert_close(a.feats, b.feats, atol=1e-4, rtol=0)


def test_levels_that_do_not_reach_the_answers():
    codec, here = make(), batch(shapes=1)
    latents = codec.encode(here.inputs)
    places = here.queries[0] * RADIUS
    first = codec.decode(latents).sample(places)
    for index in range(3):
        levels = list(latents.levels)
        noise = torch.randn(levels[index].feats.shape, generator=torch.Generator().manual_seed(index))
        levels[index] = dataclasses.replace(levels[index], feats=noise)
        changed = codec.decode(dataclasses.replace(latents, levels=tuple(levels))).sample(places)
        assert (changed - first).abs().max() > 1e-4


def test_decoding_that_is_not_what_training_saw():
    codec, here = make(), batch(shapes=1)
    with torch.no_grad():
        trained, _ = codec.answer(here.inputs, here.queries, [None] * 3)
    field = codec.decode(codec.encode(here.inputs))
    torch.testing.assert_close(field.sample(here.queries[0] * RADIUS), trained[0], atol=1e-5, rtol=1e-5)


def test_more_vectors_than_trained_with():
    codec = make()
    codec.tokens = (8, 16, 32)
    latents = codec.encode(codec.prepare(codec.normalise(box())[0]))
    assert [len(level.feats) for level in latents.levels] == [8, 16, 32]
    assert codec.decode(latents).sample(torch.zeros(1, 3)).isfinite().all()
    codec.tokens = (8, 16, 128)  # more than the points that the configuration asks for
    assert codec.prepare(codec.normalise(box())[0]).points.shape == (1, 128, 3)


def test_prepared_points_off_the_surface_or_in_no_order():
    codec = make()
    unit, frame = codec.normalise(box(3.0, 0.5))
    assert float(unit.vertices.norm(dim=1).max()) == pytest.approx(RADIUS, rel=1e-6)
    torch.testing.assert_close(frame.invert(unit.vertices), box(3.0, 0.5).vertices, atol=1e-5, rtol=0)
    inputs = codec.prepare(unit)
    assert closest_point(inputs.points[0] * RADIUS, unit.vertices, unit.faces).distance.max() < 1e-6
    picked = inputs.points[0, inputs.order[0]]
    near = torch.cdist(picked, picked) + 9 * torch.eye(16)
    assert near.min() > 0.1  # random points of this box come as near as 0.01
    torch.testing.assert_close(inputs.points, codec.prepare(unit).points)
    assert not torch.equal(inputs.points, codec.prepare(unit, rng(1)).points)


@pytest.mark.parametrize("config", [SMALL, VECSET, dataclasses.replace(SMALL, head="sdf", normals=False)])
def test_loss_that_leaves_a_parameter_without_gradient(config):
    codec = Lagem(config).train()
    loss = codec.loss(batch(config), 0, torch.Generator().manual_seed(0))
    loss.total.backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in codec.parameters())
    assert ("kl" in loss.terms) == (config.bottleneck == "kl")


def test_coarse_levels_that_need_not_answer_by_themselves():
    """The loss of the answers from the coarsest level up, written out from levels that are cut off the head."""
    config = dataclasses.replace(SMALL, near_weight=0.5)
    codec, asked = make(config), make(dataclasses.replace(config, level_weight=0.25))
    here = batch(config)
    plain, more = codec.loss(here, 0, rng(0)), asked.loss(here, 0, rng(0))
    extra = 0.0
    for kept in (1, 2):
        with torch.no_grad():
            cut = make(config)
            cut.head.out.weight[:, kept * config.channels :] = 0
            extra += 0.25 * float(cut.loss(here, 0, rng(0)).total)
    assert float(more.total.detach()) == pytest.approx(float(plain.total.detach()) + extra, rel=1e-5)
    assert set(more.terms) - set(plain.terms) == {"volume_from_1", "volume_from_2"}


def kept_and_gradients(config):
    """Bytes kept for the backward pass, and every gradient."""
    codec, kept = make(config).train(), {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = codec.loss(batch(config, queries=256), 0, rng(0)).total
    loss.backward()
    return sum(kept.values()), [p.grad for p in codec.parameters()]


def test_recomputation_that_changes_gradients_or_saves_nothing():
    config = dataclasses.replace(SMALL, depth=2)
    most, wanted = kept_and_gradients(config)
    for what in ("queries", "upsampling", "coarse"):
        less, found = kept_and_gradients(dataclasses.replace(config, recompute=what))
        assert less < 0.95 * most
        most = less
        for a, b in zip(wanted, found, strict=True):
            assert torch.equal(a, b)
    with pytest.raises(BadArgument, match="dropped paths"):
        dataclasses.replace(config, recompute="coarse", drop_path=0.1)


def test_depths_that_are_not_those_asked_for():
    codec = Lagem(dataclasses.replace(SMALL, depths=(0, 1, 3)))
    assert [len(stage) for stage in codec.decoder.stages] == [0, 1, 3]
    equal = dataclasses.replace(SMALL, depth=2), dataclasses.replace(SMALL, depths=(1, 2, 3))
    counts = [sum(p.numel() for p in Lagem(config).parameters()) for config in equal]
    assert counts[0] == counts[1]  # blocks are as large on every level: moving them between levels is free
    with pytest.raises(BadArgument, match="depths"):
        dataclasses.replace(SMALL, depths=(1, 2))


def test_near_queries_that_weigh_other_than_equation_15():
    codec, here = make(), batch()
    loss = codec.loss(here, 0, torch.Generator())
    with torch.no_grad():
        answers, _ = codec.answer(here.inputs, here.queries, [None] * 3)
    each = nn.functional.binary_cross_entropy_with_logits(answers, here.inside.float(), reduction="none")
    assert float(loss.total.detach()) == pytest.approx(float(each[:, :12].mean() + 0.1 * each[:, 12:].mean()), rel=1e-5)


def test_noise_of_the_kl_bottleneck_that_cannot_be_repeated():
    codec, here = make(VECSET), batch(VECSET)
    totals = [float(codec.loss(here, 0, torch.Generator().manual_seed(seed)).total.detach()) for seed in (1, 1, 2)]
    assert totals[0] == totals[1] != totals[2]
    mean = codec.encode(here.inputs).levels[0].feats
    drawn = [codec.encode(here.inputs, rng(seed)).levels[0].feats for seed in (1, 1)]
    assert torch.equal(*drawn) and not torch.equal(drawn[0], mean)


def test_normals_that_are_not_read():
    codec = make(dataclasses.replace(SMALL, normals=True))
    inputs = codec.prepare(codec.normalise(box())[0])
    assert inputs.normals.shape == inputs.points.shape
    flipped = dataclasses.replace(inputs, normals=-inputs.normals)
    one, two = (codec.encode(x).levels[0].feats for x in (inputs, flipped))
    assert not torch.allclose(one, two, atol=1e-3)


def test_oracle_that_is_not_the_box():
    codec = make()
    unit, _ = codec.normalise(box())
    mesh = codec.oracle(codec.prepare(unit, resolution=64)).to_mesh()
    assert mesh.is_watertight()
    found = closest_point(mesh.vertices, unit.vertices, unit.faces).distance
    assert found.mean() < 0.1 / 64 and found.max() < 1.0 / 64


def test_latents_that_a_file_changes(tmp_path):
    codec = make()
    unit, frame = codec.normalise(box())
    latents = dataclasses.replace(codec.encode(codec.prepare(unit)), frames=(frame,))
    save_latents(latents, tmp_path / "box.safetensors", bits=32)
    back = load_latents(tmp_path / "box.safetensors")
    assert all(torch.equal(a.feats, b.feats) for a, b in zip(latents.levels, back.levels, strict=True))
    assert back.codec == "lagem" and back.frames == (frame,)


def test_latents_of_another_codec_or_size():
    codec = make()
    level = Level(torch.zeros(4, 8), torch.tensor([0, 4]))
    with pytest.raises(BadLatents, match="one shape with levels"):
        codec.decode(Latents((level,), 32, codec="lagem"))
    with pytest.raises(BadLatents, match="log3d"):
        codec.decode(Latents((level,), 32, codec="log3d"))


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": (4, 8)}, {"tokens": (8, 4, 16)}, {"tokens": (4, 8, 128)}, {"head_channels": 24}, {"resolution": 20},
        {"truncation": 0.0}, {"tokens": (), "latent": ()},
    ],
)  # fmt: skip
def test_settings_that_make_no_network(change):
    with pytest.raises(BadArgument):
        dataclasses.replace(SMALL, **change)


def test_a_codec_that_cannot_learn_a_ball():
    """A few seconds of training on one batch: the network, the loss and the gradients fit each other."""
    torch.manual_seed(0)
    codec, here = Lagem(SMALL).train(), batch(shapes=4, queries=256)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = codec.loss(here, step, torch.Generator().manual_seed(step))
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert float(loss.terms["volume_accuracy"]) > 0.9
