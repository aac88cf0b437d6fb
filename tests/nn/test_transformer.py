"""The token transformer: size, independence of items and of row order, mixed precision, checkpointing."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.nn.position import sincos_position
from shapecodec.nn.transformer import SparseBlock, SparseConv, SparseTransformer


def random_grid(count, resolution=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(resolution**3, generator=generator)[:count]
    coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
    return SparseGrid.build(coords, resolution)[0]


def awake(model, seed=0):
    """Fills the layers that start at zero, so that every branch contributes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            parameter.data.normal_(0, 0.02, generator=generator)
    return model


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_leave_the_papers_budget():
    assert count(SparseBlock(256, 8, 8, 0, 0, 4)) == 789_760
    assert count(SparseConv(256, 256)) == 27 * 256 * 256 + 256
    pair, single = (count(SparseTransformer(256, 8, 8, 8, convs)) for convs in (2, 1))
    assert 34.5e6 < pair < 34.8e6
    assert 20.3e6 < single < 20.6e6


def test_start_is_not_the_identity():
    grid = random_grid(200)
    feats = torch.randn(200, 36)
    out = SparseTransformer(36, 3, 2)(feats, grid)
    assert torch.equal(out, feats + sincos_position(grid.coords, 36))


def test_packing_changes_the_result():
    torch.manual_seed(0)
    model = awake(SparseTransformer(48, 4, 3))
    grids = [random_grid(n, seed=n) for n in (150, 1, 400)]
    feats = [torch.randn(len(g), 48) for g in grids]
    packed = model(torch.cat(feats), SparseGrid.concatenate(grids))
    alone = torch.cat([model(f, g) for f, g in zip(feats, grids, strict=True)])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


def test_row_order_changes_the_result():
    torch.manual_seed(0)
    model = awake(SparseTransformer(48, 4, 2))
    grid = random_grid(300)
    feats = torch.randn(300, 48)
    shuffle = torch.randperm(300)
    again, order = SparseGrid.build(grid.coords[shuffle], grid.resolution)
    assert torch.equal(again.coords, grid.coords)
    torch.testing.assert_close(model(feats[shuffle][order], again), model(feats, grid))


def test_items_see_each_other():
    torch.manual_seed(0)
    model = awake(SparseTransformer(48, 4, 2))
    grid = SparseGrid.concatenate([random_grid(100), random_grid(100)])
    feats = torch.randn(200, 48, requires_grad=True)
    model(feats, grid)[:100].sum().backward()
    assert bool(feats.grad[:100].any(1).all())
    assert not bool(feats.grad[100:].any())


def test_shift_never_moves_the_windows():
    shifts = [block.attention.shift for block in SparseTransformer(48, 4, 4, window=8).blocks]
    assert shifts == [0, 4, 0, 4]


@pytest.mark.parametrize("convs", [0, 1, 2])
def test_checkpointing_changes_gradients(convs):
    torch.manual_seed(0)
    grid = random_grid(120)
    model = awake(SparseTransformer(48, 4, 2, convs_per_block=convs))
    gradients = []
    for flag in (False, True):
        model.checkpoint = flag
        feats = torch.randn(120, 48, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model.zero_grad()
        model(feats, grid).square().sum().backward()
        gradients.append([feats.grad, *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_plans_are_rebuilt_by_each_layer(monkeypatch):
    built = []
    windows, lookup = SparseGrid.windows, SparseGrid.lookup
    monkeypatch.setattr(SparseGrid, "lookup", lambda *a: built.append("lookup") or lookup(*a))
    monkeypatch.setattr(SparseGrid, "windows", lambda *a: built.append(id(windows(*a))) or windows(*a))
    SparseTransformer(48, 4, 4)(torch.randn(90, 48), random_grid(90))
    assert built.count("lookup") == 1
    assert len({entry for entry in built if entry != "lookup"}) == 2


def test_empty_grid_breaks_training():
    grid = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 8)
    feats = torch.zeros(0, 48, requires_grad=True)
    out = awake(SparseTransformer(48, 4, 2))(feats, grid)
    out.sum().backward()
    assert out.shape == (0, 48)


def test_wrong_sizes_pass_silently():
    with pytest.raises(BadArgument):
        SparseTransformer(50, 4, 1)
    with pytest.raises(BadArgument):
        SparseTransformer(48, 4, 1)(torch.randn(4, 48), random_grid(5))


def test_autocast_leaves_the_stream_in_float32():
    grid = random_grid(200)
    model = awake(SparseTransformer(48, 4, 2))
    feats = torch.randn(200, 48)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(feats, grid)
        exact = model(feats, grid)
    assert out.dtype == torch.bfloat16
    assert float((out.float() - exact).norm() / exact.norm()) < 2e-2


def test_positions_repeat_or_ignore_an_axis():
    coords = torch.cartesian_prod(*[torch.arange(8)] * 3)
    place = sincos_position(coords, 64)
    assert place.shape == (512, 64)
    distance = torch.cdist(place, place) + torch.eye(512) * 9
    assert float(distance.min()) > 0.5
    with pytest.raises(BadArgument):
        sincos_position(coords, 5)


@pytest.mark.gpu
@pytest.mark.parametrize("convs", [1, 2])
def test_cuda_differs_from_cpu(convs, device):
    torch.manual_seed(0)
    grid = SparseGrid.concatenate([random_grid(3000, 32), random_grid(700, 32, 1)])
    model, feats = awake(SparseTransformer(256, 8, 4, convs_per_block=convs)), torch.randn(3700, 256)
    with torch.no_grad():
        exact = model(feats, grid)
        model.to(device)
        out = model(feats.to(device), grid.to(device)).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            half = model(feats.to(device), grid.to(device))
    assert float((out - exact).norm() / exact.norm()) < 1e-4
    assert half.dtype == torch.bfloat16
    assert float((half.cpu().float() - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.gpu
def test_bfloat16_training_gradients_drift_from_float32(device):
    torch.manual_seed(0)
    grid = random_grid(20_000, 48).to(device)
    model = awake(SparseTransformer(256, 8, 2)).to(device)
    feats = torch.randn(20_000, 256, device=device)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            loss = (model(feats, grid).float() - feats).square().mean()
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for (name, _), a, b in zip(model.named_parameters(), *gradients, strict=True):
        if not name.endswith("qkv.bias"):  # a shift of all keys has no effect: that gradient is all rounding
            assert float((a - b).norm() / a.norm().clamp(min=1e-12)) < 5e-2, name
