"""Submanifold convolution against dense conv3d, and every backend against the reference."""

import pytest
import torch
from torch.nn.functional import conv3d

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.sparse_conv import BrickPlan, ConvPlan, conv_plan, cpu, sparse_conv

# numpy 2.x under Triton's interpreter, which reads loop bounds from arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

SHELL = (0.8, 1.0)  # radii of a voxel shell: surface-like neighbourhoods


def shell_grid(resolution, *, items=1, seed=0):
    """Ellipsoid shells of the given thickness, one for each item."""
    grids = []
    for item in range(items):
        axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
        points = torch.cartesian_prod(axis, axis, axis) * torch.tensor([1.0, 1.1 + 0.2 * item, 1.3])
        radius = points.norm(dim=1)
        inside = (radius > SHELL[0]) & (radius < SHELL[1])
        coords = torch.cartesian_prod(*[torch.arange(resolution)] * 3)[inside]
        grids.append(SparseGrid.build(coords, resolution)[0])
    return SparseGrid.concatenate(grids)


def random_grid(count, resolution=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(resolution**3, generator=generator)[:count]
    coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
    return SparseGrid.build(coords, resolution)[0]


def problem(grid, channels, out_channels, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = (13 * channels) ** -0.5
    feats = torch.randn(len(grid), channels, generator=generator)
    weight = torch.randn(27, channels, out_channels, generator=generator) * scale
    bias = torch.randn(out_channels, generator=generator)
    return [t.to(device, dtype).requires_grad_() for t in (feats, weight, bias)]


def run(tensors, neighbours, seed=1, **arguments):
    """Output and gradients of feats, weight and bias for one fixed cotangent."""
    out = sparse_conv(*tensors, neighbours, **arguments)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]


def relative_error(ours, theirs):
    return float((ours.double() - theirs.double()).detach().norm() / theirs.detach().double().norm().clamp(min=1e-12))


def dense(feats, weight, bias, grid):
    """The same map through a dense volume: empty voxels are zero, outputs are read where voxels are."""
    r, b = grid.resolution, grid.batch_index()
    x, y, z = grid.coords.long().unbind(1)
    volume = feats.new_zeros(grid.batch_size, r, r, r, feats.shape[1]).index_put((b, x, y, z), feats)
    kernel = weight.view(3, 3, 3, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
    out = conv3d(volume.permute(0, 4, 1, 2, 3), kernel, bias, padding=1)
    return out.permute(0, 2, 3, 4, 1)[b, x, y, z]


@pytest.mark.parametrize(
    "grid", [random_grid(1), random_grid(137), shell_grid(7, items=2)], ids=["one", "odd", "batch"]
)
def test_reference_differs_from_dense_convolution(grid):
    tensors = problem(grid, 5, 7, torch.float64)
    ours = run(tensors, grid.neighbours(), backend="reference")
    out = dense(*tensors, grid)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    theirs = [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_reference_gradients_fail_finite_differences():
    grid = random_grid(6, 3)
    torch.autograd.gradcheck(
        lambda *t: sparse_conv(*t, grid.neighbours(), "reference"), problem(grid, 2, 3, torch.float64)
    )


def test_neighbours_leak_between_items():
    grid = shell_grid(6, items=2)
    feats, weight, bias = problem(grid, 4, 4)
    first = int(grid.offsets[1])
    changed = feats.detach().clone()
    changed[first:] += 1
    before, after = (sparse_conv(f, weight, bias, grid.neighbours()) for f in (feats, changed))
    assert torch.equal(before[:first], after[:first])
    assert not torch.equal(before[first:], after[first:])


def test_empty_grid_breaks_forward_or_backward():
    grid = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 8)
    tensors = problem(grid, 4, 6)
    out, *grads = run(tensors, grid.neighbours())
    assert out.shape == (0, 6)
    assert all(float(g.abs().sum()) == 0 and g.shape == t.shape for g, t in zip(grads, tensors, strict=True))


def test_plan_is_not_shared_or_changes_the_result():
    grid = random_grid(50)
    assert conv_plan(grid) is conv_plan(grid)
    tensors = problem(grid, 4, 4)
    for a, b in zip(run(tensors, grid.neighbours()), run(tensors, conv_plan(grid)), strict=True):
        assert torch.equal(a, b)


def test_autocast_rounds_the_weight_gradient_to_half():
    grid = random_grid(60)
    feats, weight, bias = problem(grid, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = sparse_conv(feats, weight, bias, grid.neighbours())
    assert out.dtype == torch.bfloat16
    out.square().sum().backward()
    assert weight.grad.dtype == torch.float32
    exact = sparse_conv(feats, weight, bias, grid.neighbours())
    assert relative_error(out, exact) < 1e-2
    assert bool((weight.grad != weight.grad.bfloat16().float()).any())


@pytest.mark.parametrize(
    "broken", ["feats", "weight", "bias", "neighbours", "backend", "precision"], ids=lambda name: f"bad_{name}"
)
def test_wrong_arguments_pass_silently(broken):
    grid = random_grid(9)
    feats, weight, bias = problem(grid, 4, 4)
    arguments = {"feats": feats, "weight": weight, "bias": bias, "neighbours": grid.neighbours()}
    wrong = {"feats": feats[:8], "weight": weight[:, :3], "bias": bias[:3], "neighbours": grid.neighbours().long()}
    wrong |= {"backend": "cuda", "precision": "bf16"}
    with pytest.raises(BadArgument):
        sparse_conv(**{**arguments, broken: wrong[broken]})


@pytest.mark.parametrize("height", [128, 256])
def test_tiles_lose_a_pair_or_a_row(height):
    grid = shell_grid(12, items=2)
    plan = conv_plan(grid)
    tiles, neighbours = plan.tiles if height == 128 else plan.tall_tiles, plan.neighbours
    rows = tiles.rows[tiles.rows >= 0].long()
    assert torch.equal(rows.sort().values, torch.arange(len(grid)))
    for i, count in enumerate(tiles.counts.tolist()):
        mine = tiles.rows[i * height : (i + 1) * height]
        expected = torch.where(mine[:, None] >= 0, neighbours[mine.long()], -1).t()
        taps = tiles.taps[i].long()
        assert torch.equal(tiles.table[i], expected[taps])
        assert taps[:count].tolist() == (expected >= 0).any(1).nonzero()[:, 0].tolist()


TRITON_CASES = [
    (random_grid(1), 16, 16),
    (random_grid(37), 20, 33),
    (random_grid(140), 40, 16),
    (shell_grid(5, items=2), 32, 48),
]


@pytest.mark.parametrize(("grid", "channels", "out_channels"), TRITON_CASES, ids=["one", "odd", "two_tiles", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_differs_from_reference(grid, channels, out_channels, dtype):
    tensors = problem(grid, channels, out_channels, dtype)
    ours = run(tensors, conv_plan(grid), backend="triton")
    theirs = run([t.detach().float().requires_grad_() for t in tensors], conv_plan(grid), backend="reference")
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) < (1e-5 if dtype == torch.float32 else 2e-3)


def test_bricks_have_other_neighbours_than_their_grid():
    children = shell_grid(6, items=2).children().children()
    plan = conv_plan(children)
    assert isinstance(plan, BrickPlan)
    assert len(plan) == len(children)
    searched = SparseGrid(children.coords, children.offsets, children.resolution).neighbours()
    assert torch.equal(plan.neighbours, searched)


BRICK_CASES = {
    "odd": (random_grid(5, 3), 20, 33, torch.float16),
    "split": (random_grid(3, 2), 40, 48, torch.float16),
    "two_tiles": (random_grid(17), 16, 16, torch.float32),
    "batch": (SparseGrid.concatenate([random_grid(2, 2), random_grid(3, 2, 1)]), 36, 20, torch.float32),
}


@pytest.mark.parametrize(("grid", "channels", "out_channels", "dtype"), BRICK_CASES.values(), ids=BRICK_CASES)
def test_cpu_differs_from_reference_on_bricks(grid, channels, out_channels, dtype, monkeypatch):
    children = grid.children()
    tensors = problem(children, channels, out_channels, dtype)
    theirs = run(tensors, ConvPlan(children.neighbours()), backend="reference")
    for laid_out in (27 * channels * 7, cpu.LAID_OUT):
        monkeypatch.setattr(cpu, "LAID_OUT", laid_out)
        ours = run(tensors, conv_plan(children), backend="cpu")
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == dtype
            assert relative_error(a, b) < (1e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize(("grid", "channels", "out_channels", "dtype"), BRICK_CASES.values(), ids=BRICK_CASES)
def test_triton_differs_from_reference_on_bricks(grid, channels, out_channels, dtype):
    children = grid.children()
    tensors = problem(children, channels, out_channels, dtype)
    plan = conv_plan(children)
    ours = run(tensors, plan, backend="triton")
    assert not {"neighbours", "pairs", "tiles"} & set(vars(plan))  # nothing is planned or sent to the host
    plain = [t.detach().float().requires_grad_() for t in tensors]
    theirs = run(plain, ConvPlan(children.neighbours()), backend="reference")
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) < (1e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("bricks", [False, True])
def test_triton_fails_on_an_empty_grid(bricks):
    grid = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 8)
    grid = grid.children() if bricks else grid
    tensors = problem(grid, 16, 16)
    out, *grads = run(tensors, conv_plan(grid), backend="triton")
    assert out.shape == (0, 16)
    assert all(float(g.abs().sum()) == 0 and g.shape == t.shape for g, t in zip(grads, tensors, strict=True))


GPU_CASES = [(16, 1, 64, 64), (32, 2, 256, 256), (64, 1, 192, 192), (48, 1, 96, 200), (100, 1, 256, 256)]


@pytest.mark.gpu
@pytest.mark.parametrize("case", GPU_CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_triton_differs_from_reference_on_cuda(case, dtype, device):
    resolution, items, channels, out_channels = case
    grid = shell_grid(resolution, items=items).to(device)
    tensors = problem(grid, channels, out_channels, dtype, device)
    ours = run(tensors, conv_plan(grid), backend="triton")
    theirs = run([t.detach().double().requires_grad_() for t in tensors], conv_plan(grid), backend="reference")
    limit = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-5}[dtype]
    for name, a, b in zip(("out", "feats", "weight", "bias"), ours, theirs, strict=True):
        assert relative_error(a, b) < limit, name


@pytest.mark.gpu
@pytest.mark.parametrize("case", [(8, 1, 64, 64), (24, 2, 96, 96), (32, 1, 192, 96), (16, 1, 200, 260)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_triton_differs_from_reference_on_bricks_on_cuda(case, dtype, device):
    resolution, items, channels, out_channels = case
    children = shell_grid(resolution, items=items).to(device).children()
    tensors = problem(children, channels, out_channels, dtype, device)
    ours = run(tensors, conv_plan(children), backend="triton")
    theirs = run([t.detach().double().requires_grad_() for t in tensors], conv_plan(children), backend="reference")
    limit = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-5}[dtype]
    for name, a, b in zip(("out", "feats", "weight", "bias"), ours, theirs, strict=True):
        assert relative_error(a, b) < limit, name
    for a, b in zip(ours, run(tensors, conv_plan(children), backend="triton"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
def test_tf32_is_off_by_more_than_its_mantissa(device):
    grid = shell_grid(32).to(device)
    tensors = problem(grid, 128, 128, device=device)
    ours = run(tensors, conv_plan(grid), backend="triton", precision="tf32")
    theirs = run([t.detach().double().requires_grad_() for t in tensors], conv_plan(grid), backend="reference")
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) < 2e-3


@pytest.mark.gpu
def test_two_runs_differ(device):
    grid = shell_grid(64).to(device)
    tensors = problem(grid, 256, 256, torch.bfloat16, device)
    for a, b in zip(run(tensors, conv_plan(grid)), run(tensors, ConvPlan(grid.neighbours())), strict=True):
        assert torch.equal(a, b)
