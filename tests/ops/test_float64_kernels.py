"""Kernels whose sums are float32 must not be given float64: `auto` goes round them, an explicit choice is refused."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose
from shapecodec.ops.segment_mean import segment_mean
from shapecodec.ops.sparse_conv import conv_plan, sparse_conv
from shapecodec.ops.subdivide_conv import subdivide_conv


def grid(device="cpu"):
    coords = torch.cartesian_prod(*[torch.arange(3)] * 3)[:20].int()
    return SparseGrid.build(coords, 8)[0].to(device)


def weight(device):
    return torch.randn(27, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)


def rows(count, device):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)


def mean(device, dtype, backend):
    return segment_mean(rows(5, device).to(dtype), torch.tensor([0, 2, 5], device=device), backend=backend)


def convolved(device, dtype, backend):
    return sparse_conv(rows(20, device).to(dtype), weight(device), None, conv_plan(grid(device)), backend)


def bricks(device, dtype, backend):
    plan = conv_plan(grid(device).children())
    return sparse_conv(rows(160, device).to(dtype), weight(device), None, plan, backend)


def subdivided(device, dtype, backend):
    return subdivide_conv(rows(20, device).to(dtype), weight(device), None, grid(device), backend)


OPERATIONS = pytest.mark.parametrize("operation", [mean, convolved, bricks, subdivided])


def test_auto_gives_float64_to_kernels_on_cuda():
    pytest.importorskip("triton")
    cuda, available = torch.device("cuda"), ("reference", "triton")
    for dtype in (None, torch.float32, torch.bfloat16, torch.float16):
        assert choose("auto", cuda, available=available, op="op", dtype=dtype) == "triton"
    assert choose("auto", cuda, available=available, op="op", dtype=torch.float64) == "reference"


@OPERATIONS
def test_kernels_round_float64(operation):
    pytest.importorskip("triton")
    with pytest.raises(BadArgument, match="cannot serve float64"):
        operation("cpu", torch.float64, "triton")


@pytest.mark.parametrize("operation", [convolved, bricks, subdivided])
def test_float64_under_autocast_is_refused(operation):
    """It is cast before a kernel is chosen."""
    pytest.importorskip("triton")
    with torch.autocast("cpu", torch.bfloat16):
        assert operation("cpu", torch.float64, "triton").dtype == torch.bfloat16


@pytest.mark.gpu
@OPERATIONS
def test_float64_breaks_or_is_rounded_on_cuda(operation, device):
    found = operation(device, torch.float64, "auto")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.cpu(), operation("cpu", torch.float64, "reference"), rtol=1e-12, atol=1e-12)
