import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch.nn import functional

from shapecodec.errors import BadArgument, BadFile
from shapecodec.ops.rasterise import Fragments
from shapecodec.render.differentiable import Picture
from shapecodec.render.image_losses import ImageLossConfig, image_losses, weighted_sum
from shapecodec.render.lpips import HEADS, STAGES, TOGETHER, VGG, Lpips, load_lpips
from shapecodec.render.ssim import ssim


def pictures(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(size, generator=generator, dtype=dtype)
    return first, (first + 0.3 * torch.rand(size, generator=generator, dtype=dtype)).clamp(0, 1)


@pytest.mark.parametrize("size", [(2, 11, 11, 1), (1, 12, 37, 3), (3, 40, 25, 2)])
def test_similarity_of_another_library(size):
    first, second = pictures(*size)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(a.numpy(), b.numpy(), channel_axis=2, **options)
        for a, b in zip(first, second, strict=True)
    ]
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-12)
    assert ssim(first.float(), second.float()).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(first, first).tolist() == pytest.approx([1.0] * size[0])


def test_similarity_pulls_the_wrong_way():
    first, second = pictures(1, 13, 12, 2)
    assert torch.autograd.gradcheck(ssim, (first.requires_grad_(), second.requires_grad_()), atol=1e-8)


def test_similarity_rounds_under_autocast():
    first, second = pictures(1, 20, 20, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(first, second)
    assert torch.equal(inside, ssim(first, second))
    with pytest.raises(BadArgument, match="fewer than 11"):
        ssim(first[:, :10], second[:, :10])
    with pytest.raises(BadArgument, match="of one shape"):
        ssim(first, second[..., :2])


@pytest.fixture(scope="module")
def weights() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random ones, named as torchvision and the authors name theirs."""
    generator = torch.Generator().manual_seed(0)
    vgg, heads, width, place = {}, {}, 3, 0
    for number, widths in enumerate(STAGES):
        place += number > 0  # the pool
        for wider in widths:
            vgg[f"features.{place}.weight"] = torch.randn(wider, width, 3, 3, generator=generator) / (3 * width**0.5)
            vgg[f"features.{place}.bias"] = torch.randn(wider, generator=generator) / 10
            width, place = wider, place + 2
        heads[f"lin{number}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    assert list(vgg)[-1] == "features.28.bias"  # of torchvision's vgg16
    return vgg, heads


def by_hand(first: torch.Tensor, second: torch.Tensor, vgg: dict, heads: dict) -> torch.Tensor:
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = ((2 * torch.cat([first, second]) - 1 - shift) / scale).movedim(3, 1)
    total = torch.zeros(len(first))
    taps = {3: 0, 8: 1, 15: 2, 22: 3, 29: 4}
    for layer in range(30):
        if f"features.{layer}.weight" in vgg:
            x = functional.conv2d(x, vgg[f"features.{layer}.weight"], vgg[f"features.{layer}.bias"], padding=1)
        elif layer in (4, 9, 16, 23):
            x = functional.max_pool2d(x, 2)
        else:
            x = x.clamp_min(0)
        if layer in taps:
            unit = functional.normalize(x, dim=1)
            difference = (unit[: len(first)] - unit[len(first) :]) ** 2
            total += functional.conv2d(difference, heads[f"lin{taps[layer]}.model.1.weight"]).mean((1, 2, 3))
    return total


def test_perceptual_distance_by_hand(weights, tmp_path):
    vgg, heads = weights
    torch.save(vgg, tmp_path / VGG)  # noqa: TID251 - as torchvision's file is
    save_file(heads, (tmp_path / HEADS).with_suffix(".safetensors"))
    model = load_lpips(tmp_path)
    first, second = pictures(2, 32, 37, 3, dtype=torch.float32)
    expected = by_hand(first, second, vgg, heads)
    assert bool((expected > 0.01).all())
    assert torch.allclose(model(first, second), expected, rtol=1e-4)
    assert model(first, first).abs().max() == 0
    save_file(model.state_dict(), tmp_path / TOGETHER)
    assert torch.equal(load_lpips(tmp_path / TOGETHER)(first, second), model(first, second))
    black = torch.zeros(1, 16, 16, 3, requires_grad=True)
    model(black, second[:1, :16, :16]).sum().backward()
    assert bool(torch.isfinite(black.grad).all()) and float(black.grad.abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_that_are_not_there(weights, tmp_path):
    with pytest.raises(BadFile, match=f"{VGG} and {HEADS}.*put there.*{TOGETHER}"):
        load_lpips(tmp_path)
    save_file(weights[0], (tmp_path / VGG).with_suffix(".safetensors"))
    with pytest.raises(BadFile, match=f"lacks its weights {HEADS}"):
        load_lpips(tmp_path)
    save_file({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, (tmp_path / HEADS).with_suffix(".safetensors"))
    with pytest.raises(BadFile, match=r"no tensor \(128,\) for heads.1"):
        load_lpips(tmp_path)


def picture(seed: int, size: int = 16) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    mask, depth = torch.rand(2, 1, size, size, generator=generator)
    normal = functional.normalize(torch.randn(1, size, size, 3, generator=generator), dim=3)
    empty = torch.zeros(1, size, size)
    return Picture(mask, depth, normal, Fragments(empty.int(), empty))


def test_terms_by_hand():
    prediction, truth = picture(0), picture(1)
    terms = image_losses(prediction, truth, 64, lpips=(model := Lpips()))
    gap = ((prediction.depth - truth.depth) * truth.mask).abs().double()
    beta = 1 / 128
    assert terms["depth"].item() == pytest.approx(
        torch.where(gap < beta, gap**2 / (2 * beta), gap - beta / 2).mean().item(), rel=1e-5
    )
    maps = [(p.normal * truth.mask[..., None] + 1) / 2 for p in (prediction, truth)]
    assert terms["normal"].item() == pytest.approx((maps[0] - maps[1]).abs().mean().item(), rel=1e-5)
    assert terms["ssim"].item() == pytest.approx(1 - ssim(*maps).mean().item(), rel=1e-5)
    assert terms["lpips"].item() == pytest.approx(model(*maps).mean().item(), rel=1e-5)
    assert terms["mask"].item() == pytest.approx((prediction.mask - truth.mask).abs().mean().item(), rel=1e-5)
    weights = {"depth": 10, "normal": 1, "ssim": 0.2, "lpips": 0.2, "mask": 1}
    total = weighted_sum(terms, ImageLossConfig())
    assert total.item() == pytest.approx(sum(weights[name] * terms[name].item() for name in weights), rel=1e-5)
    assert {name: value.item() for name, value in image_losses(truth, truth, 64, lpips=model).items()} == (
        pytest.approx(dict.fromkeys(weights, 0.0), abs=1e-6)
    )


def test_network_that_was_forgotten():
    prediction, truth = picture(0), picture(1)
    with pytest.raises(BadArgument, match="no network"):
        image_losses(prediction, truth, 64)
    config = ImageLossConfig(lpips=0.0, ssim=0.0)
    assert set(image_losses(prediction, truth, 64, config)) == {"depth", "normal", "mask"}
    with pytest.raises(BadArgument, match="pictures"):
        image_losses(prediction, picture(1, 17), 64, config)
    with pytest.raises(BadArgument, match="at least 0"):
        ImageLossConfig(depth=-1.0)
    with pytest.raises(BadArgument, match="all weights"):
        weighted_sum({}, config)


@pytest.mark.gpu
def test_similarity_rounds_on_the_device(device):
    """TF32 and bf16 would be off by 1e-3; values and gradients stay within float32."""
    first, second = pictures(2, 518, 518, 3, dtype=torch.float32)
    expected = ssim(first.double(), second.double())
    moved = first.to(device).requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        found = ssim(moved, second.to(device))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    exact = first.double().requires_grad_()
    ssim(exact, second.double()).sum().backward()
    found.sum().backward()
    assert float((moved.grad.cpu().double() - exact.grad).norm() / exact.grad.norm()) < 1e-4
