"""A step recorded as a CUDA graph, or placed as for a recording: it must train as launched steps do."""

import dataclasses

import pytest
import torch
from vector_codec import Batch, VectorCodec, VectorConfig, VectorSource, make_codec, newest, read_log

from shapecodec.codecs.lagem import Lagem, LagemConfig, OccupancyBatch, PointInputs
from shapecodec.errors import BadArgument
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import CodecLoss, compiled, make_optimizer, train, update
from shapecodec.train.parallel import Workers
from shapecodec.train.recorded import WARM, RecordedStep, leaves, set_learning_rate


class Sometimes(VectorSource):
    """A batch that is not finite in step 6."""

    def batch(self, step, rank, world, device):
        made = super().batch(step, rank, world, device)
        return dataclasses.replace(made, vectors=made.vectors * float("nan")) if step == 6 else made


def trained(folder, device, **settings):
    torch.manual_seed(3)
    codec = VectorCodec(VectorConfig(width=80, hidden=64, noise=0.1))
    run = RunConfig(steps=12, lr=1e-2, log_every=3, precision="fp32", warmup_steps=3, **settings)
    train(codec, Sometimes(width=80), run, folder, device=device)
    return codec, read_log(folder)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_recorded_steps_that_learn_otherwise(tmp_path, device, optimizer):
    """Noise, dropout, learning rate, skipped step and count of steps: all from the device, all as without a recording."""
    launched, one = trained(tmp_path / "launched", device, optimizer=optimizer)
    recorded, other = trained(tmp_path / "recorded", device, optimizer=optimizer, cuda_graphs=True)
    assert [line["skipped"] for line in other] == [0, 0, 1, 1]
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-3}
    for a, b in zip(launched.parameters(), recorded.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    for a, b in zip(one, other, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3) and a["lr"] == b["lr"]


def test_a_recorded_run_that_forgets_its_moments(tmp_path):
    run = RunConfig(steps=9, lr=1e-2, optimizer="muon", checkpoint_every_steps=3, cuda_graphs=True)
    for name, options in (("whole", {}), ("parts", {"stop_after_s": 0.0})):
        codec = make_codec(VectorConfig(width=80, hidden=64))
        train(codec, VectorSource(width=80), run, tmp_path / name, device="cpu", **options)
    again = make_codec(VectorConfig(width=80, hidden=64))
    train(again, VectorSource(width=80), run, tmp_path / "parts", device="cpu", resume=True)
    ends = [(newest(tmp_path / name) / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert ends[0] == ends[1]


def test_a_batch_of_another_shape_is_refused():
    codec = make_codec()
    optimizer = make_optimizer(codec, RunConfig(steps=1))
    step = RecordedStep(lambda batch, _: (("sum",), batch.vectors.sum()[None]), optimizer, torch.device("cpu"))
    assert float(step(Batch(torch.ones(2, 3), 2), 0)[1]) == 6
    assert float(step(Batch(torch.full((2, 3), 2.0), 2), 0)[1]) == 12
    for bad in (Batch(torch.ones(3, 3), 2), Batch(torch.ones(2, 3), 3), Batch(torch.ones(2, 3).double(), 2)):
        with pytest.raises(BadArgument, match="differs from the first"):
            step(bad, 0)


def test_a_batch_that_is_freed_or_changed_after_the_call():
    codec = make_codec()
    seen = []
    step = RecordedStep(
        lambda batch, _: seen.append(batch.vectors) or ((), batch.vectors.sum()[None]),
        make_optimizer(codec, RunConfig(steps=1)), torch.device("cpu"),
    )  # fmt: skip
    mine = torch.ones(2, 3)
    step(Batch(mine, 2), 0)
    mine.zero_()
    step(Batch(torch.full((2, 3), 5.0), 2), 0)
    assert seen[0] is seen[1] and seen[0].data_ptr() != mine.data_ptr() and float(seen[0].sum()) == 30


def test_leaves_of_a_nested_batch_are_all_there():
    inputs = PointInputs(torch.zeros(1, 4, 3), torch.zeros(1, 2, dtype=torch.int64), 32)
    batch = OccupancyBatch(inputs, torch.zeros(1, 5, 3), torch.zeros(1, 5, dtype=torch.bool), 2)
    found = list(leaves(batch))
    assert sum(isinstance(leaf, torch.Tensor) for leaf in found) == 4
    assert [leaf for leaf in found if not isinstance(leaf, torch.Tensor)] == [32, None, None, 2, None]


def test_learning_rate_reaches_the_tensor_that_was_recorded():
    codec = make_codec()
    optimizer = make_optimizer(codec, RunConfig(steps=1, lr=1e-3))
    set_learning_rate(optimizer, 2e-3)
    assert all(group["lr"] == 2e-3 for group in optimizer.param_groups)
    RecordedStep(lambda *_: ((), torch.zeros(0)), optimizer, torch.device("cpu"))
    before = [group["lr"] for group in optimizer.param_groups]
    set_learning_rate(optimizer, 4e-3)
    assert all(
        group["lr"] is old and float(old) == pytest.approx(4e-3)
        for group, old in zip(optimizer.param_groups, before, strict=True)
    )


def test_several_passes_cannot_be_recorded():
    with pytest.raises(BadArgument, match="one pass"):
        RunConfig(steps=1, cuda_graphs=True, accumulation=2)


@pytest.mark.filterwarnings(
    "ignore:.*script_method. is deprecated:DeprecationWarning"
)  # torch's own, on importing its compiler
def test_parts_stay_compiled_after_training():
    codec = Lagem(LagemConfig(tokens=(2, 4), latent=(4, 4), channels=16, head_channels=16, depth=1, points=8))
    run, workers = RunConfig(steps=1, compile=True), Workers("cpu")
    model = CodecLoss(codec, "fp32", torch.device("cpu"))
    with compiled(model, codec, run, workers):
        assert len(codec.compiled_parts()) == 2 + 2 + 1 + 2 + 1
        assert all(part._compiled_call_impl is not None for part in codec.compiled_parts())
    assert all(part._compiled_call_impl is None for part in (model, *codec.compiled_parts()))


@pytest.mark.gpu
def test_lagem_recorded_and_compiled_gives_the_losses_of_launched_steps():
    """Attention, recomputation, and the KL's noise from the recorded generator are all in it."""
    config = LagemConfig(tokens=(16, 64), latent=(8, 8), channels=128, points=256, depth=2, recompute="coarse")
    config = dataclasses.replace(config, bottleneck="kl")
    generator = torch.Generator("cuda").manual_seed(0)
    points = torch.randn(4, 256, 3, generator=generator, device="cuda")
    order = torch.arange(64, device="cuda").expand(4, 64).contiguous()
    places = torch.randn(4, 128, 3, generator=generator, device="cuda")
    batch = OccupancyBatch(PointInputs(points, order, 32), places, places.norm(dim=2) < 1.2, 64)
    reports = []
    for recorded in (False, True):
        torch.manual_seed(0)
        codec = Lagem(config).cuda().train()
        run, workers = RunConfig(steps=20, lr=1e-3, compile=recorded), Workers("cuda")
        model, optimizer = CodecLoss(codec, "fp32", torch.device("cuda")), make_optimizer(codec, run)

        def work(made, noise, model=model, run=run, workers=workers, optimizer=optimizer):
            return update(model, [(made, noise)], 0, run, workers, optimizer)

        with compiled(model, codec, run, workers):
            step = RecordedStep(work, optimizer, workers.device) if recorded else None
            rows = []
            for seed in range(WARM + 9):
                noise = torch.Generator("cuda").manual_seed(seed)
                rows.append(step(batch, seed)[1] if step else work(batch, noise)[1])
        assert step is None or step.graph is not None
        reports.append(torch.stack(rows))
    torch.testing.assert_close(reports[0][:, 0], reports[1][:, 0], rtol=2e-2, atol=1e-3)
    assert float(reports[1][-1, 0]) < float(reports[1][0, 0])
