"""The convolutions of LoG3D's local networks beside cuDNN's, forward and backward, and a whole training step, as JSON (CUDA).

python bench/block_conv.py [--blocks 8192]

Both compute the same values; FLOPs are the nominal 27 taps of each output that is kept, so an algorithm that needs fewer shows a
higher rate. cuDNN gets bf16 channels_last_3d tensors, its best layout, and the upsampled cube ready made; the cropped
layer it computes whole, 2.4 times the outputs that are kept.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F

from shapecodec.nn.local import LocalDecoder, LocalEncoder
from shapecodec.ops.block_conv import block_conv, block_conv_up

CASES = (
    ("encoder 12^3", 12, 32, 32, 0, False), ("encoder 6^3 a", 6, 32, 64, 0, False), ("encoder 6^3 b", 6, 64, 64, 0, False),
    ("encoder 3^3", 3, 128, 128, 0, False), ("decoder 2^3 up", 1, 256, 128, 0, True), ("decoder 4^3 up", 2, 128, 64, 0, True),
    ("decoder 4^3", 4, 64, 64, 0, False), ("decoder 8^3 up", 4, 64, 32, 0, True), ("decoder 8^3", 8, 32, 32, 0, False),
    ("decoder 16^3 up", 8, 32, 16, 0, True), ("decoder 16^3 crop", 16, 16, 16, 2, False),
)  # fmt: skip


def milliseconds(function, repeats=10):
    for _ in range(3):
        function()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def both(forward, tensors):
    """ms forward, ms backward, and the output."""
    out = forward()
    grad = torch.randn_like(out)
    with torch.no_grad():
        ahead = milliseconds(forward)
    return ahead, milliseconds(lambda: torch.autograd.grad(out, tensors, grad, retain_graph=True)), out.detach()


def compare(name, size, channels, out_channels, crop, up, blocks):
    x = torch.randn(blocks, size, size, size, channels, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (
        (torch.randn(out_channels, channels, 3, 3, 3, device="cuda") / (27 * channels) ** 0.5)
        .bfloat16()
        .requires_grad_()
    )
    bias = torch.zeros(out_channels, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    ours = both(
        lambda: block_conv_up(x, weight, bias) if up else block_conv(x, weight, bias, crop=crop), (x, weight, bias)
    )
    y = x.detach().movedim(-1, 1)
    y = (
        (F.interpolate(y, scale_factor=2) if up else y)
        .contiguous(memory_format=torch.channels_last_3d)
        .requires_grad_()
    )
    w = weight.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    theirs = both(lambda: F.conv3d(y, w, bias, padding=1), (y, w, bias))
    inner = slice(crop, theirs[2].shape[2] - crop)
    difference = (theirs[2][:, :, inner, inner, inner].movedim(1, -1).float() - ours[2].float()).norm() / ours[
        2
    ].float().norm()
    out = 2 * size if up else size - 2 * crop
    flops = 2 * 27 * channels * out_channels * out**3 * blocks
    return {
        "layer": name, "ms": [ours[0], ours[1]], "cudnn_ms": [theirs[0], theirs[1]],
        "speedup": [theirs[0] / ours[0], theirs[1] / ours[1]], "tflops_nominal": [flops / ours[0] / 1e9, 2 * flops / ours[1] / 1e9],
        "relative_difference": float(difference),
    }  # fmt: skip


def training_rate(blocks):
    """Blocks a second, forward and backward, of both local networks at the paper's width under bf16 autocast."""
    encoder, decoder = LocalEncoder(chunk=blocks).cuda(), LocalDecoder(chunk=blocks).cuda()
    field = torch.rand(blocks, 12, 12, 12, device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = (decoder(encoder(field)) - field).square().mean()
        loss.backward()

    def forward():
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            decoder(encoder(field))

    return {
        "training_blocks_per_s": blocks / milliseconds(step) * 1e3,
        "inference_blocks_per_s": blocks / milliseconds(forward) * 1e3,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=8192)
    args = parser.parse_args()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    report = {
        "hardware": torch.cuda.get_device_name(), "torch": torch.__version__, "blocks": args.blocks,
        "matrix_tflops": 2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9,
        "local_networks": training_rate(args.blocks),
        "layers": [compare(*case, args.blocks) for case in CASES],
    }  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
