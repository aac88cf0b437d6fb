"""Trilinear samples of a blocked field: reference against dense interpolation, fast paths against the reference."""

import pytest
import torch
from torch.nn.functional import grid_sample

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.block_sample import block_sample

BLOCKS = 5


def random_field(count: int, device: str = "cpu", blocks: int = BLOCKS) -> tuple[SparseGrid, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    flat = torch.randperm(blocks**3, generator=draw)[:count]
    coords = torch.stack([flat // blocks**2, flat // blocks % blocks, flat % blocks], 1)
    grid = SparseGrid.build(coords, blocks)[0]
    return grid.to(device), torch.rand(count, 8, 8, 8, generator=draw).to(device)


def points_everywhere(count: int, device: str = "cpu") -> torch.Tensor:
    draw = torch.Generator().manual_seed(count + 1)
    return ((torch.rand(count, 3, generator=draw) - 0.5) * 1.2).to(device)


def dense(grid: SparseGrid, values: torch.Tensor, fill: float) -> torch.Tensor:
    size = grid.resolution
    volume = torch.full((size, size, size, 8, 8, 8), fill)
    volume[tuple(grid.coords.long().unbind(1))] = values
    return volume.permute(0, 3, 1, 4, 2, 5).reshape(8 * size, 8 * size, 8 * size)


@pytest.mark.parametrize("count", [1, 17, BLOCKS**3])
def test_reference_against_dense_interpolation(count):
    grid, values = random_field(count)
    points = points_everywhere(4001)
    padded = torch.nn.functional.pad(dense(grid, values, 0.75), (8,) * 6, value=0.75)
    place = (points * 2 * 8 * BLOCKS / (8 * BLOCKS + 16)).flip(1)
    expected = grid_sample(padded[None, None], place.view(1, 1, 1, -1, 3), align_corners=False, mode="bilinear")
    value, _ = block_sample(points, values, grid, fill=0.75, backend="reference")
    torch.testing.assert_close(value, expected.view(-1), atol=2e-5, rtol=0)


def test_reference_gradient_against_differences():
    grid, values = random_field(BLOCKS**3)
    voxel = 1 / (8 * BLOCKS)
    cell = torch.randint(0, 8 * BLOCKS - 1, (500, 3), generator=torch.Generator().manual_seed(3))
    inside = 0.2 + 0.6 * torch.rand(500, 3, generator=torch.Generator().manual_seed(4))
    points = (cell + 0.5 + inside) * voxel - 0.5
    _, gradient = block_sample(points, values, grid, backend="reference")
    for axis in range(3):
        step = torch.zeros(3)
        step[axis] = 0.1 * voxel
        rise = block_sample(points + step, values, grid)[0] - block_sample(points - step, values, grid)[0]
        torch.testing.assert_close(gradient[:, axis], rise / 0.2, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize(("blocks", "points"), [(0, 5), (1, 1), (17, 257), (125, 3001), (3, 0)])
def test_fast_paths_against_reference(backend, blocks, points):
    grid, values = random_field(blocks)
    where = points_everywhere(points)
    expected = block_sample(where, values, grid, fill=0.6, backend="reference")
    for got, want in zip(block_sample(where, values, grid, fill=0.6, backend=backend), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_far_points_read_the_fill(backend):
    grid, values = random_field(9)
    far = torch.tensor([[1e12, 0, 0], [0, -1e12, 0], [3.0, 3.0, 3.0]])
    value, gradient = block_sample(far, values, grid, backend=backend)
    assert torch.equal(value, torch.ones(3))
    assert torch.equal(gradient, torch.zeros(3, 3))


def test_shapes_that_do_not_fit():
    grid, values = random_field(4)
    with pytest.raises(BadArgument, match="points"):
        block_sample(torch.zeros(4), values, grid)
    with pytest.raises(BadArgument, match="values"):
        block_sample(torch.zeros(4, 3), values[:3], grid)
    with pytest.raises(BadArgument, match="backend"):
        block_sample(torch.zeros(4, 3), values, grid, backend="quick")


@pytest.mark.gpu
def test_triton_against_reference_at_1024():
    grid, values = random_field(60_000, "cuda", blocks=128)
    where = points_everywhere(2_000_000, "cuda")
    expected = block_sample(where, values, grid, backend="reference")
    for got, want in zip(block_sample(where, values, grid, backend="triton"), expected, strict=True):
        torch.testing.assert_close(got, want, atol=3e-4, rtol=0)
