"""Subdivision with convolution against copying and convolving, and Triton against plain torch."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.sparse_conv import sparse_conv
from shapecodec.ops.subdivide_conv import subdivide_conv
from shapecodec.ops.subdivide_conv.fold import fold, unfold

# numpy 2.x under Triton's interpreter, which reads loop bounds from arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def random_grid(count, resolution, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(resolution**3, generator=generator)[:count]
    coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
    return SparseGrid.build(coords, resolution)[0]


def sphere(count, device):
    """About `count` voxels that a sphere passes through."""
    radius = (count / 18.8) ** 0.5
    resolution = 2 * int(radius + 3)
    axis = torch.arange(resolution, device=device) + 0.5 - resolution / 2
    place = torch.cartesian_prod(axis, axis, axis)
    length = place.norm(dim=1)
    touched = (length - radius).abs() < 0.5 * place.abs().sum(1) / length
    return SparseGrid.build((place[touched] + resolution / 2).floor().to(torch.int32), resolution)[0]


def problem(grid, channels, out_channels, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(len(grid), channels, generator=generator)
    weight = torch.randn(27, channels, out_channels, generator=generator) * (13 * channels) ** -0.5
    bias = torch.randn(out_channels, generator=generator)
    return [t.to(device, dtype).requires_grad_() for t in (feats, weight, bias)]


def run(tensors, grid, **arguments):
    """Output and gradients of feats, weight and bias for one fixed cotangent."""
    out = subdivide_conv(*tensors, grid, **arguments)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]


def relative_error(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-12))


EMPTY = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 8)
GRIDS = {
    "empty": EMPTY,
    "single": random_grid(1, 4),
    "full": random_grid(27, 3),
    "odd": random_grid(137, 8),
    "batch": SparseGrid.concatenate([random_grid(9, 8), EMPTY, random_grid(30, 8, 1)]),
    "children": random_grid(6, 3).children(),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_folded_differs_from_copying_and_convolving(grid):
    tensors = problem(grid, 5, 7, torch.float64)
    children = grid.children()
    searched = SparseGrid(children.coords, children.offsets, children.resolution).neighbours()
    out = sparse_conv(tensors[0].repeat_interleave(8, 0), *tensors[1:], searched, "reference")
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    exact = [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]
    for backend in ("reference", "folded"):
        for ours, theirs in zip(run(tensors, grid, backend=backend), exact, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_folded_gradients_fail_finite_differences():
    grid = random_grid(5, 3)
    torch.autograd.gradcheck(lambda *t: subdivide_conv(*t, grid, "folded"), problem(grid, 2, 3, torch.float64))


def test_unfold_is_not_the_transpose_of_fold():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(27, 3, 2, generator=draw, dtype=torch.float64)
    parts = torch.randn(8, 8, 3, 2, generator=draw, dtype=torch.float64)
    torch.testing.assert_close((fold(weight) * parts).sum(), (weight * unfold(parts)).sum())


def test_autocast_rounds_the_weight_gradient_to_half():
    grid = random_grid(60, 8)
    feats, weight, bias = problem(grid, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = subdivide_conv(feats, weight, bias, grid)
    assert out.dtype == torch.bfloat16
    out.square().sum().backward()
    assert weight.grad.dtype == torch.float32
    assert relative_error(out.detach(), subdivide_conv(feats, weight, bias, grid).detach()) < 1e-2
    assert bool((weight.grad != weight.grad.bfloat16().float()).any())


@pytest.mark.parametrize("broken", ["feats", "weight", "bias", "grid", "backend", "precision"])
def test_wrong_arguments_pass_silently(broken):
    grid = random_grid(9, 4)
    feats, weight, bias = problem(grid, 4, 4)
    arguments = {"feats": feats, "weight": weight, "bias": bias, "grid": grid}
    wrong = {"feats": feats[:8], "weight": weight[:, :3], "bias": bias[:3], "grid": random_grid(8, 4)}
    wrong |= {"backend": "cuda", "precision": "bf16"}
    with pytest.raises(BadArgument):
        subdivide_conv(**{**arguments, broken: wrong[broken]})


TRITON_CASES = {
    "single": (GRIDS["single"], 20, 33, torch.float16),
    "split": (random_grid(5, 2), 36, 48, torch.float16),
    "batch": (GRIDS["batch"], 16, 20, torch.float32),
    "two_tiles": (random_grid(66, 5), 16, 16, torch.float32),
    "children": (random_grid(2, 2).children(), 16, 24, torch.float16),
}


@pytest.mark.parametrize(("grid", "channels", "out_channels", "dtype"), TRITON_CASES.values(), ids=TRITON_CASES)
def test_triton_differs_from_folded(grid, channels, out_channels, dtype):
    tensors = problem(grid, channels, out_channels, dtype)
    ours = run(tensors, grid, backend="triton")
    theirs = run([t.detach().float().requires_grad_() for t in tensors], grid, backend="folded")
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) < (1e-5 if dtype == torch.float32 else 2e-3)


def test_triton_fails_on_an_empty_grid():
    tensors = problem(EMPTY, 16, 16)
    out, *grads = run(tensors, EMPTY, backend="triton")
    assert out.shape == (0, 16)
    assert all(float(g.abs().sum()) == 0 and g.shape == t.shape for g, t in zip(grads, tensors, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("parents", "refined", "channels", "out_channels"), [(15_000, 0, 768, 192), (15_000, 1, 192, 96), (700, 0, 200, 72)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_triton_differs_from_folded_on_cuda(parents, refined, channels, out_channels, dtype, device):
    grid = sphere(parents, device)
    for _ in range(refined):
        grid = grid.children()
    tensors = problem(grid, channels, out_channels, dtype, device)
    ours = run(tensors, grid, backend="triton")
    theirs = run([t.detach().double().requires_grad_() for t in tensors], grid, backend="folded")
    limit = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 2e-5}[dtype]
    for name, a, b in zip(("out", "feats", "weight", "bias"), ours, theirs, strict=True):
        assert relative_error(a, b) < limit, name
    for a, b in zip(ours, run(tensors, grid, backend="triton"), strict=True):
        assert torch.equal(a, b)
