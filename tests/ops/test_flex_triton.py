"""The kernels of the extraction and of the corners against the reference: surfaces, values, every gradient."""

import pytest
import torch

from shapecodec.codecs.focusing.total_variation import total_variation
from shapecodec.grid import SparseGrid
from shapecodec.ops.flex_surface import average_corners, flex_surface, voxel_corners

CASES = ["nothing", "one voxel", "too few", "odd box", "scattered", "far corner", "no sign"]
NAMES = ("vertices", "deviation", "sdf", "deformation", "alpha", "beta", "gamma")


def box(*sides: int, resolution: int = 16) -> SparseGrid:
    return SparseGrid.build(torch.cartesian_prod(*[torch.arange(side) for side in sides]), resolution)[0]


def some_grid(case: str) -> SparseGrid:
    if case == "nothing":
        return box(0, 1, 1)
    if case == "one voxel":
        return box(1, 1, 1)
    if case == "too few":
        return box(2, 1, 1)
    if case == "far corner":
        near = box(4, 4, 4, resolution=1 << 20)
        return SparseGrid(near.coords + ((1 << 20) - 4), near.offsets, 1 << 20)
    if case == "scattered":
        pick = torch.randperm(9**3, generator=torch.Generator().manual_seed(1))[:500]
        return SparseGrid.build(torch.stack([pick // 81, pick // 9 % 9, pick % 9], 1), 9)[0]
    return box(9, 8, 7)


def inputs(grid: SparseGrid, dtype: torch.dtype, case: str = "", device: str = "cpu") -> list[torch.Tensor]:
    """All five at random, which meets every case; sdf keeps off zero."""
    corners, rows = len(voxel_corners(grid)), len(grid)
    generator = torch.Generator().manual_seed(3)
    sizes = (corners,), (corners, 3), (rows, 8), (rows, 12), (rows,)
    sdf, deformation, *weights = (torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes)
    sdf = sdf + 1 if case == "no sign" else sdf * 2 - 1
    values = sdf + 0.1 * sdf.sign(), 0.6 * deformation - 0.3, *(value + 0.3 for value in weights)
    return [value.to(device, dtype).requires_grad_() for value in values]


def extracted(grid: SparseGrid, values: list[torch.Tensor], split: str, backend: str) -> tuple:
    """Faces, and the tensors called NAMES."""
    out = flex_surface(grid, *values, split=split, backend=backend)
    weights = torch.rand(out.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = (out.vertices * weights.to(out.vertices)).sum() + 16 * out.deviation
    grads = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
    return out.faces, [out.vertices.detach(), out.deviation.detach(), *grads]


def assert_alike(ours: tuple, theirs: tuple, tolerance: float) -> None:
    assert torch.equal(ours[0], theirs[0].to(ours[0].device)), "faces differ"
    for name, a, b in zip(NAMES, ours[1], theirs[1], strict=True):
        assert a.shape == b.shape, name
        worst = float((a - b.to(a.device)).abs().max()) if a.numel() else 0.0
        assert worst <= tolerance * (float(b.abs().max()) if b.numel() else 0.0), f"{name} off by {worst}"


@pytest.mark.parametrize("split", ["centre", "diagonal"])
@pytest.mark.parametrize("case", CASES)
def test_kernels_extract_another_surface(case: str, split: str) -> None:
    pytest.importorskip("triton")
    grid = some_grid(case)
    values = inputs(grid, torch.float64, case)
    theirs = extracted(grid, values, split, "reference")
    assert (len(theirs[0]) > 100) == (case in ("odd box", "scattered", "far corner"))
    # the quads' centres lie 2^20 voxels from the origin in one case: their differences keep six digits less
    assert_alike(extracted(grid, values, split, "triton"), theirs, 1e-8 if case == "far corner" else 1e-12)


def test_kernels_in_single_precision() -> None:
    pytest.importorskip("triton")
    grid = some_grid("scattered")
    values = inputs(grid, torch.float32)
    theirs = extracted(grid, values, "centre", "reference")
    assert_alike(extracted(grid, values, "centre", "triton"), theirs, 1e-5)


def test_one_output_without_the_other() -> None:
    """Training may drop the regulariser, or start before there is a surface: the missing gradient is zero, not garbage."""
    pytest.importorskip("triton")
    grid = some_grid("scattered")
    values = inputs(grid, torch.float64)
    for pick in (lambda out: out.deviation, lambda out: out.vertices.square().sum()):
        theirs, ours = (
            torch.autograd.grad(pick(flex_surface(grid, *values, backend=name)), values, materialize_grads=True)
            for name in ("reference", "triton")
        )
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


# ---- corners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_corner_counted_twice(case: str) -> None:
    pytest.importorskip("triton")
    grid = some_grid(case)
    theirs = voxel_corners(grid, backend="reference")
    ours = voxel_corners(SparseGrid(grid.coords, grid.offsets, grid.resolution), backend="triton")
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.index, theirs.index)
    assert torch.equal(ours.incident, theirs.incident)


def averaged(predictions: torch.Tensor, grid: SparseGrid, backend: str) -> list[torch.Tensor]:
    means, loss = average_corners(predictions, voxel_corners(grid), backend=backend)
    weights = torch.rand(means.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(means)
    return [means.detach(), loss.detach(), torch.autograd.grad((means * weights).sum() + 9 * loss, predictions)[0]]


@pytest.mark.parametrize("case", CASES)
def test_means_of_other_voxels(case: str) -> None:
    pytest.importorskip("triton")
    grid = some_grid(case)
    wide = torch.rand(len(grid), 53, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    sliced = wide[:, 8:32].unflatten(1, (8, 3)).requires_grad_()
    swapped = wide[:, :32].unflatten(1, (4, 8)).transpose(1, 2).requires_grad_()
    for predictions in (sliced, swapped):
        for a, b in zip(*(averaged(predictions, grid, name) for name in ("triton", "reference")), strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_means_of_half_precision_are_summed_in_it() -> None:
    pytest.importorskip("triton")
    grid = some_grid("odd box")
    exact = torch.rand(len(grid), 8, 2, generator=torch.Generator().manual_seed(4)) + 100
    means, _ = average_corners(exact.half(), voxel_corners(grid), backend="triton")
    wanted, _ = average_corners(exact.half().double(), voxel_corners(grid), backend="reference")
    assert torch.equal(means, wanted.half())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("case", CASES)
def test_variation_across_other_edges(case: str, reduction: str) -> None:
    pytest.importorskip("triton")
    corners = voxel_corners(some_grid(case))
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(len(corners), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("triton", "reference"):
        total = total_variation(values, corners, reduction=reduction, epsilon=1e-4, backend=backend)
        results.append([total.detach(), torch.autograd.grad(3 * total, values)[0]])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


# ---- on a GPU, at the sizes of training -----------------------------------------------------------------------------


def bricks(latent: int) -> SparseGrid:
    """Fine voxels of the latent voxels around a sphere."""
    axis = torch.arange(latent)
    coords = torch.cartesian_prod(axis, axis, axis)
    radius = ((coords + 0.5) / latent - 0.5).norm(dim=1)
    grid = SparseGrid.build(coords[(radius - 0.37).abs() < 1 / latent], latent)[0]
    return grid.children().children()


@pytest.mark.gpu
@pytest.mark.parametrize("split", ["centre", "diagonal"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_million_voxels_on_cuda(noise: float, split: str, device: str) -> None:
    """A sphere with learnt-like weights, and signs at random in every voxel."""
    grid = bricks(64).to(device)
    values = inputs(grid, torch.float64, device=device)
    distance = (voxel_corners(grid).positions().norm(dim=1).double() - 0.37) * 256
    values[0] = torch.lerp(distance, values[0].detach(), noise).requires_grad_()
    theirs = extracted(grid, values, split, "reference")
    assert len(theirs[0]) > 300_000
    ours = extracted(grid, values, split, "triton")
    assert_alike(ours, theirs, 1e-10)
    again = extracted(grid, values, split, "triton")
    assert all(torch.equal(a, b) for a, b in zip((ours[0], *ours[1]), (again[0], *again[1]), strict=True))
    single = [value.detach().float().requires_grad_() for value in values]
    assert_alike(extracted(grid, single, split, "auto"), extracted(grid, single, split, "reference"), 2e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_corners_of_a_million_voxels_on_cuda(dtype: torch.dtype, device: str) -> None:
    grid = bricks(64).to(device)
    theirs, ours = (
        voxel_corners(SparseGrid(grid.coords, grid.offsets, grid.resolution), backend=name)
        for name in ("reference", "triton")
    )
    assert len(ours) > len(grid) > 300_000
    assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("keys", "index", "incident"))
    generator = torch.Generator(device).manual_seed(4)
    predictions = torch.rand(len(grid), 8, 4, generator=generator, device=device, dtype=dtype, requires_grad=True)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for a, b in zip(*(averaged(predictions, grid, name) for name in ("triton", "reference")), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.gpu
def test_variation_of_a_million_corners_on_cuda(device: str) -> None:
    corners = voxel_corners(bricks(64).to(device))
    generator = torch.Generator(device).manual_seed(6)
    values = torch.randn(len(corners), generator=generator, device=device, dtype=torch.float64, requires_grad=True)
    totals = [total_variation(values, corners, backend=name) for name in ("triton", "reference")]
    assert torch.allclose(*totals, rtol=1e-10)
    assert torch.allclose(*(torch.autograd.grad(total, values)[0] for total in totals), rtol=1e-9, atol=1e-12)
