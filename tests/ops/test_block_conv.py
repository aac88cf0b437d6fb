"""Convolutions of small cubes: the reference against torch and a literal network, every twin against the reference."""

import pytest
import torch
import torch.nn.functional as F

from shapecodec.errors import BadArgument
from shapecodec.ops.block_conv import banding, block_conv, block_conv_up, reference
from shapecodec.ops.block_norm import relu_group_norm, relu_head, relu_max_pool
from shapecodec.ops.field_conv import field_conv


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / (b.norm() + 1e-12))


def compare_twins(
    function, tensors, *, data=(), tolerance=2e-5, device="cpu", dtype=torch.float32, twin="triton", **options
):
    """Values and the gradient of every tensor in `tensors`, a twin against the reference on the same (rounded) inputs."""
    results = []
    for backend, kind in (("reference", torch.float32), (twin, dtype)):
        leaves = [t.to(device=device, dtype=dtype).to(kind).requires_grad_() for t in tensors]
        out = function(*[t.to(device) for t in data], *leaves, backend=backend, **options)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device).to(dtype)
        results.append((out, *torch.autograd.grad(out, leaves, grad.to(out.dtype))))
    for got, wanted in zip(results[1], results[0], strict=True):
        assert torch.isfinite(got).all()
        assert relative(got, wanted) < tolerance


def conv_tensors(cubes, size, channels, out_channels):
    generator = torch.Generator().manual_seed(size * 1000 + channels)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    weight = draw(out_channels, channels, 3, 3, 3) / (27 * channels) ** 0.5
    return [draw(cubes, size, size, size, channels), weight, draw(out_channels)]


@pytest.mark.parametrize("crop", [0, 1])
def test_reference_is_torch_convolution_of_each_cube_alone(crop):
    x, weight, bias = conv_tensors(3, 5, 4, 6)
    out = block_conv(x, weight, bias, crop=crop, backend="reference")
    for cube in range(3):
        wanted = F.conv3d(x[cube].permute(3, 0, 1, 2)[None], weight, bias, padding=1)[0].permute(1, 2, 3, 0)
        torch.testing.assert_close(out[cube], wanted[crop : 5 - crop, crop : 5 - crop, crop : 5 - crop])


@pytest.mark.parametrize(
    ("size", "channels", "out_channels", "crop"),
    [(1, 8, 16, 0), (2, 8, 8, 0), (3, 8, 16, 0), (4, 8, 8, 1), (6, 16, 32, 0), (8, 16, 16, 2)],
)
def test_convolution_twin(size, channels, out_channels, crop):
    compare_twins(block_conv, conv_tensors(2, size, channels, out_channels), crop=crop)


@pytest.mark.parametrize(("size", "channels", "out_channels"), [(1, 8, 16), (2, 8, 8), (4, 16, 16)])
def test_upsampling_twin(size, channels, out_channels):
    compare_twins(block_conv_up, conv_tensors(2, size, channels, out_channels))


@pytest.mark.parametrize(
    ("size", "channels", "out_channels", "crop"),
    [
        (1, 8, 16, 0),
        (3, 8, 16, 0),
        (4, 8, 8, 1),
        (5, 3, 7, 0),
        (6, 16, 32, 0),
        (7, 4, 4, 1),
        (12, 4, 8, 0),
        (16, 8, 4, 2),
    ],
)
def test_convolution_on_the_cpu(size, channels, out_channels, crop):
    compare_twins(block_conv, conv_tensors(3, size, channels, out_channels), crop=crop, twin="cpu")


@pytest.mark.parametrize(
    ("size", "channels", "out_channels"), [(1, 8, 16), (2, 8, 8), (3, 4, 5), (4, 16, 8), (8, 8, 4)]
)
def test_upsampling_on_the_cpu(size, channels, out_channels):
    compare_twins(block_conv_up, conv_tensors(3, size, channels, out_channels), twin="cpu")


def test_upsampling_is_the_convolution_of_repeated_voxels():
    x, weight, bias = conv_tensors(2, 3, 2, 4)
    big = F.interpolate(x.movedim(-1, 1), scale_factor=2, mode="nearest").movedim(1, -1)
    torch.testing.assert_close(block_conv_up(x, weight, bias), block_conv(big, weight, bias))


@pytest.mark.parametrize("band", [banding.plain(6, 0, 2), banding.plain(6, 0, 3), banding.plain(8, 2, 4)])
def test_banded_weight_holds_every_kernel_element_once_an_output(band):
    weight = torch.rand(5, 4, 3, 3, 3) + 0.5
    banded = banding.banded_weight(weight, band)
    torch.testing.assert_close(banded.sum((1, 2)).view(band.z_out, 5), weight.sum((1, 2, 3, 4)).expand(band.z_out, 5))


def test_no_cubes():
    for size in (3, 6):
        x, weight, bias = conv_tensors(2, size, 16, 16)
        for backend in ("reference", "cpu", "triton"):
            assert block_conv(x[:0], weight, bias, backend=backend).shape == (0, size, size, size, 16)
            assert block_conv_up(x[:0], weight, bias, backend=backend).shape == (0, 2 * size, 2 * size, 2 * size, 16)


def test_channels_that_do_not_fit_are_refused():
    x, weight, bias = conv_tensors(1, 3, 4, 4)
    with pytest.raises(BadArgument, match="must be"):
        block_conv(x[..., :3], weight, bias)
    with pytest.raises(BadArgument, match="crop"):
        block_conv(x, weight, bias, crop=2)


@pytest.mark.parametrize(("size", "channels", "groups"), [(1, 32, 8), (3, 16, 4), (5, 8, 8), (6, 16, 8)])
@pytest.mark.parametrize("relu", [True, False])
def test_norm_twin(size, channels, groups, relu):
    generator = torch.Generator().manual_seed(size)
    tensors = [torch.randn(s, generator=generator) for s in ((3, size, size, size, channels), (channels,), (channels,))]
    compare_twins(relu_group_norm, tensors, groups=groups, relu=relu)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_pool_twin_drops_an_odd_last_plane(size):
    x = torch.randn(3, size, size, size, 4, generator=torch.Generator().manual_seed(size))
    compare_twins(relu_max_pool, [x], tolerance=1e-12)


def test_head_twin():
    generator = torch.Generator().manual_seed(0)
    compare_twins(relu_head, [torch.randn(s, generator=generator) for s in ((3, 5, 5, 5, 16), (16,), ())])


def field_tensors(cubes, size, channels):
    generator = torch.Generator().manual_seed(size)
    return torch.rand(cubes, size, size, size, generator=generator), [
        torch.randn(cubes, 27, channels, generator=generator) for _ in range(2)
    ]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_field_convolution_twin(size):
    field, stencils = field_tensors(2, size, 16)
    compare_twins(field_conv, stencils, data=[field])


def test_field_convolution_is_a_convolution_of_field_and_indicator():
    field, kernel = torch.rand(2, 4, 4, 4), torch.randn(3, 2, 27)
    channels = torch.stack([field, torch.ones_like(field)], 1)
    wanted = F.conv3d(channels, kernel.view(3, 2, 3, 3, 3), padding=1).movedim(1, -1)
    got = field_conv(field, kernel[:, 0].T.expand(2, 27, 3), kernel[:, 1].T.expand(2, 27, 3))
    torch.testing.assert_close(got, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("up", "size", "channels", "out_channels", "crop"),
    [
        (False, 12, 32, 32, 0), (False, 6, 32, 64, 0), (False, 6, 64, 64, 0), (False, 3, 128, 128, 0), (False, 8, 32, 32, 0),
        (False, 16, 16, 16, 2), (False, 4, 64, 64, 0), (True, 4, 64, 32, 0), (True, 8, 32, 16, 0), (True, 2, 128, 64, 0),
        (False, 12, 16, 16, 0), (False, 16, 8, 8, 2), (True, 8, 16, 8, 0),
    ],
)  # fmt: skip
def test_convolution_twins_at_network_sizes(up, size, channels, out_channels, crop, dtype):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    options = {} if up else {"crop": crop}
    compare_twins(
        block_conv_up if up else block_conv, conv_tensors(37, size, channels, out_channels), device="cuda", dtype=dtype,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-5, **options,
    )  # fmt: skip


@pytest.mark.gpu
def test_norm_pool_head_and_stem_twins_in_bf16():
    generator = torch.Generator().manual_seed(0)
    for size, channels in ((12, 32), (6, 64), (3, 128), (16, 16), (1, 256)):
        x = torch.randn(37, size, size, size, channels, generator=generator)
        affine = [torch.randn(channels, generator=generator) for _ in range(2)]

        def norm(x, weight, bias, backend):
            return relu_group_norm(x, weight.float(), bias.float(), 8, backend=backend)

        compare_twins(norm, [x, *affine], device="cuda", dtype=torch.bfloat16, tolerance=1e-2)
        if size > 1:
            compare_twins(relu_max_pool, [x], device="cuda", dtype=torch.bfloat16, tolerance=1e-6)
    field, stencils = field_tensors(37, 12, 32)
    compare_twins(field_conv, stencils, data=[field], device="cuda", tolerance=1e-5)


def test_adjoint_weight_is_an_involution():
    weight = torch.randn(3, 4, 3, 3, 3)
    torch.testing.assert_close(banding.adjoint_weight(banding.adjoint_weight(weight)), weight)


def test_reference_gradients_in_double_precision():
    x, weight, bias = (t.double().requires_grad_() for t in conv_tensors(1, 3, 2, 2))
    assert torch.autograd.gradcheck(lambda *a: reference.block_conv(*a, crop=1), (x, weight, bias))
    assert torch.autograd.gradcheck(reference.block_conv_up, (x, weight, bias))
