"""Window attention against a loop over windows, and every backend against the dense reference."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.window_attention import segment, window_attention

# numpy 2.x under Triton's interpreter, which reads loop bounds from arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def random_grid(counts, resolution=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    grids = []
    for count in counts:
        cells = torch.randperm(resolution**3, generator=generator)[:count]
        coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
        grids.append(SparseGrid.build(coords, resolution)[0])
    return SparseGrid.concatenate(grids)


def full_window_and_stragglers():
    """One window of all 512 rows beside windows of one row: the widest spread of lengths."""
    full = torch.cartesian_prod(*[torch.arange(8)] * 3)
    return SparseGrid.build(torch.cat([full, full[::100] * 3 + 8]), 64)[0]


def problem(grid, heads, width, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(len(grid), heads, width, generator=generator).to(device, dtype).requires_grad_() for _ in "qkv"]


def run(tensors, plan, backend):
    out = window_attention(*tensors, plan, backend)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]


def relative_error(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=0.1))


@pytest.mark.parametrize("shift", [0, 4])
def test_reference_differs_from_a_loop_over_windows(shift):
    grid = random_grid([150, 90])
    q, k, v = (t.detach() for t in problem(grid, 2, 8))
    out = window_attention(q, k, v, grid.windows(8, shift), "reference")
    cell = torch.cat([grid.batch_index()[:, None], (grid.coords + shift) // 8], 1)
    for row in range(len(grid)):
        same = (cell == cell[row]).all(1)
        weights = torch.einsum("hd,jhd->hj", q[row], k[same]).div(8**0.5).softmax(-1)
        torch.testing.assert_close(out[row], torch.einsum("hj,jhd->hd", weights, v[same]))


GRIDS = {
    "one": random_grid([1]),
    "odd": random_grid([77, 301]),
    "crowded": random_grid([900], 10),
    "spread": full_window_and_stragglers(),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("shift", [0, 4])
def test_segment_differs_from_reference(name, shift):
    grid = GRIDS[name]
    tensors, plan = problem(grid, 3, 16), grid.windows(8, shift)
    for a, b in zip(run(tensors, plan, "segment"), run(tensors, plan, "reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_small_score_budget_changes_the_result(monkeypatch):
    grid = GRIDS["odd"]
    tensors, plan = problem(grid, 3, 16), grid.windows(8)
    whole = run(tensors, plan, "segment")
    monkeypatch.setattr(segment, "SCORES", 1)
    for a, b in zip(run(tensors, plan, "segment"), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "segment"])
def test_empty_grid_breaks_forward_or_backward(backend):
    grid = SparseGrid(torch.zeros(0, 3, dtype=torch.int32), torch.tensor([0, 0]), 8)
    assert all(t.shape == (0, 2, 8) for t in run(problem(grid, 2, 8), grid.windows(8), backend))


@pytest.mark.parametrize("backend", ["fused", "cuda", "nonsense"])
def test_unservable_backend_passes_silently(backend):
    grid = GRIDS["one"]
    with pytest.raises(BadArgument):
        window_attention(*problem(grid, 2, 8), grid.windows(8), backend)


def test_wrong_rows_pass_silently():
    q, k, v = problem(GRIDS["odd"], 2, 8)
    with pytest.raises(BadArgument):
        window_attention(q, k, v, GRIDS["one"].windows(8))
    with pytest.raises(BadArgument):
        window_attention(q, k[:, :1], v, GRIDS["odd"].windows(8))


@pytest.mark.parametrize("name", ["one", "odd", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_differs_from_reference(name, dtype):
    # Dense is one window of three tiles; odd is many windows of few rows, of two items.
    grid = {"one": GRIDS["one"], "odd": random_grid([31, 9], 12), "dense": random_grid([150], 6)}[name]
    tensors, plan = problem(grid, 1 if name == "dense" else 2, 16, dtype), grid.windows(8, 4 if name == "odd" else 0)
    exact = [t.detach().float().requires_grad_() for t in tensors]
    for a, b in zip(run(tensors, plan, "triton"), run(exact, plan, "reference"), strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) < (1e-5 if dtype == torch.float32 else 2e-3)


def test_triton_misreads_strided_views():
    grid = random_grid([40], 10)
    qkv = torch.randn(40, 3, 2, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plan = grid.windows(8)
    gradients = []
    for backend in ("triton", "reference"):
        out = window_attention(*qkv.unbind(1), plan, backend)
        gradients.append(torch.autograd.grad(out.square().sum(), qkv)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_triton_takes_widths_it_cannot_serve():
    grid = GRIDS["one"]
    with pytest.raises(BadArgument):
        window_attention(*problem(grid, 2, 24), grid.windows(8), "triton")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["fused", "triton"])
@pytest.mark.parametrize("name", [*GRIDS, "large"])
@pytest.mark.parametrize("heads", [8, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_differs_from_float32_on_cuda(backend, name, heads, dtype, device):
    grid = random_grid([60_000, 9_000], 64) if name == "large" else GRIDS[name]
    grid = grid.to(device)
    tensors = problem(grid, heads, 32, dtype, device)
    exact = [t.detach().float().requires_grad_() for t in tensors]
    for shift in (0, 4):
        plan = grid.windows(8, shift)
        for a, b in zip(run(tensors, plan, backend), run(exact, plan, "segment"), strict=True):
            assert relative_error(a, b) < 1e-2


@pytest.mark.gpu
def test_float32_on_cuda_is_refused_or_wrong(device):
    grid = GRIDS["odd"].to(device)
    tensors, plan = problem(grid, 8, 32, device=device), grid.windows(8)
    for backend in ("auto", "triton"):
        for a, b in zip(run(tensors, plan, backend), run(tensors, plan, "reference"), strict=True):
            assert relative_error(a, b) < 1e-4
    with pytest.raises(BadArgument):
        window_attention(*tensors, plan, "fused")


@pytest.mark.gpu
@pytest.mark.parametrize("width", [16, 64, 128])
def test_other_head_widths_differ_on_cuda(width, device):
    grid = random_grid([20_000], 48).to(device)
    for dtype, limit in ((torch.bfloat16, 1e-2), (torch.float32, 1e-4)):
        tensors, plan = problem(grid, 4, width, dtype, device), grid.windows(8, 4)
        exact = [t.detach().float().requires_grad_() for t in tensors]
        for a, b in zip(run(tensors, plan, "triton"), run(exact, plan, "segment"), strict=True):
            assert relative_error(a, b) < limit


@pytest.mark.gpu
def test_two_triton_runs_differ(device):
    grid = random_grid([60_000], 64).to(device)
    tensors, plan = problem(grid, 8, 32, torch.bfloat16, device), grid.windows(8)
    for a, b in zip(run(tensors, plan, "triton"), run(tensors, plan, "triton"), strict=True):
        assert torch.equal(a, b)
