"""What goes wrong at block seams: wrong neighbour, wrong count, a gradient that is not the adjoint."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.block_halo import gather_halo, pad_average

FAST = ["cpu", "triton"]


def some_grid(blocks: int, resolution: int, seed: int = 0) -> SparseGrid:
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(resolution**3, generator=generator)[:blocks]
    coords = torch.stack([pick // resolution**2, pick // resolution % resolution, pick % resolution], 1).int()
    return SparseGrid.build(coords, resolution)[0]


def two_items() -> SparseGrid:
    return SparseGrid.concatenate([some_grid(20, 3), some_grid(15, 3, seed=1)])


CASES = {
    "empty": lambda: some_grid(0, 4),
    "single": lambda: some_grid(1, 1),
    "few": lambda: some_grid(7, 2),
    "odd": lambda: some_grid(37, 5),
    "full": lambda: some_grid(27, 3),
    "batch": two_items,
}


def to_dense(values: torch.Tensor, grid: SparseGrid, fill: float) -> torch.Tensor:
    """One item's blocks in a dense volume with a border of one absent block."""
    side = (grid.resolution + 2) * 8
    dense = torch.full((side, side, side), fill)
    for (x, y, z), block in zip((grid.coords.long() + 1).tolist(), values, strict=True):
        dense[x * 8 : x * 8 + 8, y * 8 : y * 8 + 8, z * 8 : z * 8 + 8] = block
    return dense


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("case", ["single", "odd", "full"])
def test_reference_gather_differs_from_dense(case: str, pad: int) -> None:
    grid = CASES[case]()
    values = torch.randn(len(grid), 8, 8, 8)
    padded = gather_halo(values, grid, pad, 7.0, backend="reference")
    dense = to_dense(values, grid, 7.0)
    for (x, y, z), block in zip((grid.coords.long() * 8 + 8 - pad).tolist(), padded, strict=True):
        size = 8 + 2 * pad
        assert torch.equal(block, dense[x : x + size, y : y + size, z : z + size])


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("case", ["single", "odd", "full"])
def test_reference_average_differs_from_dense(case: str, pad: int) -> None:
    grid = CASES[case]()
    size = 8 + 2 * pad
    values = torch.randn(len(grid), size, size, size)
    side = (grid.resolution + 2) * 8
    total, count = torch.zeros(side, side, side), torch.zeros(side, side, side)
    for (x, y, z), block in zip((grid.coords.long() * 8 + 8 - pad).tolist(), values, strict=True):
        total[x : x + size, y : y + size, z : z + size] += block
        count[x : x + size, y : y + size, z : z + size] += 1
    mean = total / count
    averaged = pad_average(values, grid, pad, backend="reference")
    for (x, y, z), block in zip((grid.coords.long() * 8 + 8).tolist(), averaged, strict=True):
        torch.testing.assert_close(block, mean[x : x + 8, y : y + 8, z : z + 8])


def test_seam_on_a_linear_field() -> None:
    grid = CASES["full"]()
    place = torch.arange(8, dtype=torch.float32)
    low = grid.coords.float() * 8
    axes = [low[:, axis, None] + place for axis in range(3)]
    linear = axes[0][:, :, None, None] + 0.5 * axes[1][:, None, :, None] - 0.25 * axes[2][:, None, None, :]
    for backend in ("reference", "cpu"):
        assert torch.equal(pad_average(gather_halo(linear, grid, backend=backend), grid, backend=backend), linear)


def test_items_of_a_batch_see_each_other() -> None:
    grid = two_items()
    values = torch.randn(len(grid), 8, 8, 8)
    first = gather_halo(values[:20], some_grid(20, 3), backend="reference")
    for backend in ("reference", *FAST):
        assert torch.equal(gather_halo(values, grid, backend=backend)[:20], first)


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_cpu_differs_from_reference(case: str, pad: int) -> None:
    compare(CASES[case](), pad, "cpu", torch.float32, "cpu")


@pytest.mark.parametrize(("case", "pad"), [("empty", 2), ("single", 2), ("few", 0), ("few", 1), ("few", 2), ("few", 3)])
def test_triton_differs_from_reference(case: str, pad: int) -> None:
    compare(CASES[case](), pad, "triton", torch.float32, "cpu")


@pytest.mark.parametrize("backend", FAST)
def test_bfloat16_is_summed_in_bfloat16(backend: str) -> None:
    compare(CASES["few"](), 2, backend, torch.bfloat16, "cpu")


def compare(grid: SparseGrid, pad: int, backend: str, dtype: torch.dtype, device: str) -> None:
    """Values and gradients of both operations against the reference."""
    size = 8 + 2 * pad
    grid = grid.to(device)
    block = torch.randn(len(grid), 8, 8, 8, device=device, dtype=dtype)
    padded = torch.randn(len(grid), size, size, size, device=device, dtype=dtype)
    results = []
    for name in ("reference", backend):
        a, b = block.clone().requires_grad_(), padded.clone().requires_grad_()
        gathered, averaged = gather_halo(a, grid, pad, 1.0, backend=name), pad_average(b, grid, pad, backend=name)
        gathered.backward(padded)
        averaged.backward(block.float())
        results.append((gathered, averaged, a.grad, b.grad))
    loose = {"rtol": 0.02, "atol": 0.03} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    (gathered, averaged, grad_a, grad_b), (fast_gathered, fast_averaged, fast_a, fast_b) = results
    assert fast_averaged.dtype == torch.float32
    assert fast_gathered.dtype == dtype
    assert torch.equal(gathered, fast_gathered)
    torch.testing.assert_close(averaged, fast_averaged, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad_a, fast_a, **loose)
    torch.testing.assert_close(grad_b, fast_b, **loose)


def test_bad_arguments_are_accepted() -> None:
    grid = CASES["odd"]()
    with pytest.raises(BadArgument, match="pad 4"):
        gather_halo(torch.zeros(len(grid), 8, 8, 8), grid, 4)
    with pytest.raises(BadArgument, match="expected values"):
        pad_average(torch.zeros(len(grid), 8, 8, 8), grid, 2)
    with pytest.raises(BadArgument, match="floating point"):
        gather_halo(torch.zeros(len(grid), 8, 8, 8, dtype=torch.int32), grid)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pad", [0, 1, 2, 3])
def test_gpu_differs_from_reference(pad: int, dtype: torch.dtype) -> None:
    compare(some_grid(20_000, 40), pad, "triton", dtype, "cuda")


@pytest.mark.gpu
def test_gpu_offsets_overflow_int32() -> None:
    grid = some_grid(1_300_000, 110).to("cuda")  # 1.3M * 12^3 elements pass 2^31
    values = torch.rand(len(grid), 8, 8, 8, device="cuda", dtype=torch.bfloat16)
    padded = gather_halo(values, grid)
    assert torch.equal(padded[:, 2:10, 2:10, 2:10], values)
    last = pad_average(padded, grid)[-1000:]
    torch.testing.assert_close(last, values[-1000:].float(), rtol=1e-5, atol=1e-6)
