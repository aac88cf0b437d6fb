"""Means of runs of rows against a loop, and Triton against the reference."""

from itertools import pairwise

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.segment_mean import segment_mean

# numpy 2.x under Triton's interpreter, which reads loop bounds from arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

LENGTHS = {
    "no_runs": [],
    "only_empty": [0, 0],
    "single": [1],
    "odd": [3, 0, 17, 1, 0, 0, 33, 5, 16],
    "long": [100, 1, 75],
}


def problem(lengths, channels, dtype=torch.float32, device="cpu"):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.as_tensor(lengths, dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.randn(int(offsets[-1]), channels, generator=draw) + 3
    return values.to(device, dtype).requires_grad_(), offsets.to(device)


def run(values, offsets, backend):
    out = segment_mean(values, offsets, backend=backend)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out.detach(), torch.autograd.grad(out, values, cotangent)[0]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_reference_differs_from_a_loop(lengths):
    values, offsets = problem(lengths, 5, torch.float64)
    bounds = offsets.tolist()
    loop = [values[a:b].mean(0) if a < b else values.new_zeros(5) for a, b in pairwise(bounds)]
    out = segment_mean(values, offsets, backend="reference")
    torch.testing.assert_close(out, torch.stack(loop) if loop else values.new_zeros(0, 5))


def test_reference_gradient_fails_finite_differences():
    values, offsets = problem([2, 0, 3], 2, torch.float64)
    torch.autograd.gradcheck(lambda v: segment_mean(v, offsets, backend="reference"), values)


def test_sum_of_halves_overflows_or_stalls():
    # 4096 ones of float16: a half sum stalls at 2048, one of 60000s overflows.
    for value in (1.0, 60000.0):
        values = torch.full((4096, 2), value, dtype=torch.float16)
        assert segment_mean(values, torch.tensor([0, 4096])).tolist() == [[value, value]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", [1, 20, 300])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_triton_differs_from_reference(lengths, channels, dtype):
    values, offsets = problem(lengths, channels, dtype)
    ours, theirs = run(values, offsets, "triton"), run(values, offsets, "reference")
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("broken", ["values", "kind", "offsets", "none", "cover", "order", "backend"])
def test_wrong_arguments_pass_silently(broken):
    values, offsets = problem([2, 3], 4)
    arguments = {"values": values, "offsets": offsets}
    wrong = {
        "values": {"values": values[0]},
        "kind": {"values": values.detach().long()},
        "offsets": {"offsets": offsets.int()},
        "none": {"offsets": offsets[:0]},
        "cover": {"offsets": offsets[:2]},
        "order": {"offsets": torch.tensor([0, 4, 3, 5])},
        "backend": {"backend": "cuda"},
    }
    with pytest.raises(BadArgument):
        segment_mean(**(arguments | wrong[broken]))


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [3, 256, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_differs_from_reference_on_cuda(channels, dtype, device):
    lengths = torch.randint(0, 41, (40_000,), generator=torch.Generator().manual_seed(2))
    values, offsets = problem(lengths, channels, dtype, device)
    exact = run(values.detach().double().requires_grad_(), offsets, "reference")
    ours = run(values, offsets, "triton")
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(
            a.double(), b.to(a.dtype).double(), rtol=1e-5 if dtype == torch.float32 else 8e-3, atol=1e-5
        )
    assert all(torch.equal(a, b) for a, b in zip(ours, run(values, offsets, "triton"), strict=True))
