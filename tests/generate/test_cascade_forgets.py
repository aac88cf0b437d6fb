"""The cascade: it learns a handful of shapes by heart, finer levels leave coarser ones alone, classes and pairs are checked."""

from dataclasses import replace

import pytest
import torch

from shapecodec.codecs.lagem import Lagem, LagemConfig
from shapecodec.errors import BadArgument, BadFile
from shapecodec.generate.batch import LatentBatch, stage_batch
from shapecodec.generate.cascade import Cascade, CascadeConfig, standardise
from shapecodec.generate.edm import Edm
from shapecodec.generate.flow import Flow
from shapecodec.generate.guidance import Guidance
from shapecodec.generate.pipeline import Request, generate_latents
from shapecodec.generate.registry import load_generator
from shapecodec.generate.sets import DenseSets
from shapecodec.latents import Latents, Level
from shapecodec.recipes import find_recipe

CONFIG = CascadeConfig(
    codec="tiny",
    codec_hash="0123",
    tokens=(2, 3, 5),
    latent=(8, 6, 4),
    classes=("gear", "bolt", "chair"),
    channels=(32, 32, 32),
    depth=(2, 2, 2),
    head_channels=16,
    cross_every=1,
    shared_modulation=True,
    process=Edm(mean=-0.4, std=1.4),
)
TWO = replace(CONFIG, tokens=(2, 3), latent=(8, 6), channels=(32, 32), depth=(1, 1))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def shapes(count, config=CONFIG, seed=0):
    sizes = zip(config.tokens, config.latent, strict=True)
    return [standardise(torch.randn(count, *size, generator=seeded(seed))) for size in sizes]


def batch_of(levels, labels, seed):
    return LatentBatch(tuple(stage_batch(levels[: i + 1], labels, seeded(1000 * seed + i)) for i in range(len(levels))))


@pytest.fixture(scope="module")
def awake():
    """Random weights that are nowhere zero."""
    torch.manual_seed(0)
    cascade = Cascade(replace(CONFIG, condition_noise=0.2))
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1)) / parameter.shape[-1] ** 0.5)
    return cascade.eval()


def apart(made, wanted):
    """Mean distance of a made vector to the nearest wanted one; sets have no order."""
    return float(torch.stack([torch.cdist(a, b).amin(1) for a, b in zip(made, wanted, strict=True)]).mean())


def fitted(parameters, loss, steps=250):
    """Adam on `loss(step)`, with a learning rate that falls to 0."""
    optimizer = torch.optim.Adam(parameters, 1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


def test_three_shapes_are_not_learnt_by_heart():
    torch.manual_seed(0)
    cascade, levels = Cascade(TWO), shapes(3, TWO)
    many, labels = [level.repeat(16, 1, 1) for level in levels], torch.arange(3).repeat(16)
    fitted(cascade.parameters(), lambda step: cascade.loss(batch_of(many, labels, step), step, seeded(0)).total)
    assert set(cascade.loss(batch_of(many, labels, 0), 0, seeded(0)).terms) == {"z2", "z1"}
    made = cascade.eval().sample(3, seed=1, labels=[0, 1, 2], steps=12)
    for level, wanted in zip(made.levels, levels, strict=True):
        found = level.feats.view(wanted.shape)
        assert apart(found, wanted) < 0.3 * apart(found, wanted.roll(1, 0))


def test_flow_does_not_learn_by_heart():
    torch.manual_seed(0)
    stage, flow, dense, wanted = Cascade(TWO).stages[0], Flow(), DenseSets(), shapes(3, TWO)[0]
    clean, labels = wanted.repeat(16, 1, 1), torch.arange(3).repeat(16)

    def loss(step):
        noise, normal = (torch.randn(size, generator=seeded(step)) for size in (clean.shape, (48,)))
        return flow.loss(lambda x, t: stage(x, t, labels, (), t), clean, noise, flow.times(normal), dense).mean()

    fitted(stage.parameters(), loss)
    noise = torch.randn(wanted.shape, generator=seeded(999))
    made = flow.sample(lambda x, t: stage(x, t, torch.arange(3), (), t), noise, dense, steps=25)
    assert apart(made, wanted) < 0.3 * apart(made, wanted.roll(1, 0))


def test_finer_noise_changes_coarser_levels(awake):
    one = awake.sample(2, seed=3, steps=3)
    fixed = [level.feats.view(2, -1, level.feats.shape[1]) for level in one.levels]
    for kept in (1, 2):
        other = awake.sample(2, seed=4, steps=3, fixed=fixed[:kept])
        for index, (a, b) in enumerate(zip(one.levels, other.levels, strict=True)):
            assert torch.equal(a.feats, b.feats) == (index < kept)


def test_coarser_level_is_not_heard(awake):
    """With everything else equal, a finer level follows each coarser one."""
    fixed = [level.feats[None] for level in awake.sample(1, seed=3, steps=3).levels]
    other = [level.feats[None] for level in awake.sample(1, seed=5, steps=3).levels]
    finest = awake.sample(1, seed=3, steps=3, fixed=fixed[:2]).levels[2].feats
    for index in range(2):
        changed = [other[i] if i == index else fixed[i] for i in range(2)]
        assert not torch.allclose(awake.sample(1, seed=3, steps=3, fixed=changed).levels[2].feats, finest, atol=1e-3)


def test_levels_leave_the_sphere(awake):
    for level in awake.sample(2, steps=2).levels:
        assert torch.allclose(level.feats.mean(1), torch.zeros(len(level.feats)), atol=1e-5)
        assert torch.allclose(level.feats.var(1, correction=0), torch.ones(len(level.feats)), atol=1e-3)


def test_shape_depends_on_its_neighbours_in_the_batch(awake):
    together, alone = awake.sample(3, seed=7, steps=3), awake.sample(1, seed=7, first=2, steps=3)
    for a, b in zip(together.levels, alone.levels, strict=True):
        assert torch.allclose(a.feats[-len(b.feats) :], b.feats, atol=1e-4)


def test_seed_does_not_decide(awake):
    one, two, other = (awake.sample(2, seed=seed, steps=2).levels[2].feats for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.allclose(one, other, atol=0.1)


def test_category_or_guidance_is_not_heard(awake):
    def finest(**options):
        return awake.sample(1, steps=3, **options).levels[2].feats

    plain = finest(labels=[1])
    assert torch.equal(finest(labels=[1], guidance=Guidance(1.0)), plain)
    for other in (finest(labels=[2]), finest(), finest(labels=[1], guidance=Guidance(3.0))):
        assert not torch.allclose(other, plain, atol=1e-3)
    with pytest.raises(BadArgument, match="guidance follows a category"):
        finest(guidance=Guidance(2.0))


def test_label_is_never_dropped_or_always():
    torch.manual_seed(0)
    levels, labels = shapes(64), torch.zeros(64, dtype=torch.int64)
    for share, used in ((0.0, [0]), (1.0, [3]), (0.5, [0, 3])):
        cascade = Cascade(replace(CONFIG, drop_label=share))
        torch.nn.init.normal_(cascade.stages[0].body.out.weight)  # else no gradient passes
        torch.nn.init.normal_(cascade.stages[0].body.last.weight)
        cascade.loss(batch_of(levels, labels, 0), 0, seeded(0)).total.backward()
        rows = cascade.stages[0].label.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
        assert rows == used


def test_variants_share_too_little_or_too_much(awake):
    request = Request(4, seed=2, steps=2, fix_levels=1, batch=2)
    made = list(generate_latents(awake, request))
    assert len(made) == 4 and all(latents.batch_size == 1 for latents in made)
    for other in made[1:]:
        assert torch.equal(other.levels[0].feats, made[0].levels[0].feats)
        assert not torch.allclose(other.levels[1].feats, made[0].levels[1].feats, atol=0.1)
    like = Latents(tuple(Level(x[0], torch.tensor([0, x.shape[1]])) for x in shapes(1, seed=9)), 32)
    again = list(generate_latents(awake, replace(request, count=2), like=like))
    assert torch.equal(again[0].levels[2].feats, like.levels[2].feats)
    assert torch.equal(again[1].levels[0].feats, like.levels[0].feats)
    for levels in (3, 7):
        with pytest.raises(BadArgument, match="cannot be kept"):
            list(generate_latents(awake, replace(request, fix_levels=levels)))


def test_progress_is_not_what_was_promised(awake):
    for request in (Request(5, steps=2, batch=2), Request(5, steps=2, batch=2, categories=("gear", "bolt"))):
        calls = []
        assert len(list(generate_latents(awake, request, progress=lambda c=calls: c.append(1)))) == 5
        assert len(calls) == request.evaluations(awake)


def test_unknown_category_or_size(awake):
    with pytest.raises(BadArgument, match="knows no category 'dragon'"):
        list(generate_latents(awake, Request(1, categories=("dragon",))))
    for options in ({"labels": [0]}, {"fixed": shapes(1)[:1]}, {"steps": 0}):
        with pytest.raises(BadArgument):
            awake.sample(2, **options)
    for bad in ({"channels": (32, 32)}, {"classes": ("a", "a")}, {"latent": (8, 6)}, {"drop_label": 2.0}):
        with pytest.raises(BadArgument):
            replace(CONFIG, **bad)


def test_wrong_pair(tmp_path):
    torch.manual_seed(0)
    small = LagemConfig(
        tokens=(2, 3, 5), latent=(8, 6, 4), channels=32, head_channels=16, depth=1, points=32, resolution=32
    )
    codec, other = Lagem(small), Lagem(small)
    bare = replace(CONFIG, codec_hash="", tokens=(), latent=(), classes=())
    with pytest.raises(BadArgument, match="never saved"):
        bare.for_codec(codec, ())
    codec.save(tmp_path / "codec", name="tiny")
    other.save(tmp_path / "other", name="other")
    config = bare.for_codec(codec, ("gear",))
    assert (config.tokens, config.latent, config.classes) == ((2, 3, 5), (8, 6, 4), ("gear",))
    cascade = Cascade(config)
    cascade.check_codec(codec)
    with pytest.raises(BadArgument, match="makes latents of the codec 'tiny'"):
        cascade.check_codec(other)
    with pytest.raises(BadArgument, match="which now has"):
        config.for_codec(other, ())
    kl = Lagem(replace(small, bottleneck="kl"))
    kl.save(tmp_path / "kl")
    with pytest.raises(BadArgument, match="standardised"):
        bare.for_codec(kl, ())
    cascade.save(tmp_path / "made", name="made")
    again = load_generator(tmp_path / "made")
    assert again.name == "made" and again.config == config and again.codec_hash == cascade.codec_hash
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), cascade.parameters(), strict=True))
    with pytest.raises(BadFile, match="holds a codec, not a generator"):
        load_generator(tmp_path / "codec")
    with pytest.raises(BadFile, match="no generator of that name"):
        load_generator("cascade-colossal")
    (tmp_path / "made" / "model.safetensors").unlink()
    with pytest.raises(BadFile, match=r"no model\.safetensors"):
        load_generator(tmp_path / "made")


@pytest.mark.parametrize(("name", "millions"), [("cascade-small", 24.5), ("cascade-shapenet", 417.0)])
def test_recipe_is_of_another_size_than_stated(name, millions):
    levels = {"tokens": (32, 128, 512), "latent": (32, 16, 8), "classes": tuple(map(str, range(24)))}
    with torch.device("meta"):
        cascade = Cascade(replace(find_recipe(name).codec, codec_hash="x", **levels))
    assert sum(p.numel() for p in cascade.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
