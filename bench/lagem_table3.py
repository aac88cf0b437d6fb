"""Table 3 of LaGeM: a training step of LaGeM and of VecSet, seconds and peak memory, as JSON and as a table (CUDA).

python bench/lagem_table3.py [--points 8192] [--official FOLDER] [--output FILE] [--launched] [--recompute coarse] [--only TEXT]

A step is farthest points, forward, backward, gradient norm and AdamW on random points and labels, in bf16 with float32
parameters, compiled block by block and recorded as one CUDA graph, as `train` does it with `compile` and `cuda_graphs`;
--launched leaves the recording out. Ours includes the farthest points; theirs takes a random subset instead, which is to their
advantage. The peak of ours is that of the step in which the graph is recorded: a replay allocates nothing that could be counted.
--recompute names what LaGeM computes again in its backward pass (`LagemConfig`); VecSet has nothing that it would gain by.
--only takes the cases whose name contains the text.
`--official` names a folder with lagem/models_ae.py and vecset/models_ae.py of the published repositories (MIT): they run unmodified
but for attention, which is torch's fused one for both, with float32 parameters and TF32 products as published. The rate counts
matrix products and attention of one step, recomputation left out, against a bf16 product of 8192^3 measured in the same run.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import types
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from shapecodec.codecs.lagem import Lagem, LagemConfig, OccupancyBatch, PointInputs
from shapecodec.codecs.lagem.config import RECOMPUTE
from shapecodec.ops.farthest_points import farthest_points
from shapecodec.rng import rng
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import CodecLoss, compiled, make_optimizer, update
from shapecodec.train.parallel import Workers
from shapecodec.train.recorded import WARM, RecordedStep

SMALL = {"tokens": (32, 128, 512), "latent": (32, 16, 8), "channels": 512}
LARGE = {"tokens": (128, 512, 2048), "latent": (64, 32, 16), "channels": 1024}
CASES = (
    ("512 vectors, batch 64", SMALL, 8, 64),
    ("2k vectors, batch 8", LARGE, 64, 8),
    ("2k vectors, batch 4", LARGE, 64, 4),
)
QUERIES = 2048
PAPER = {  # A100, Table 3: seconds, MiB
    ("512 vectors, batch 64", "VecSet"): (0.6481, 56125), ("512 vectors, batch 64", "LaGeM"): (0.5658, 37055),
    ("2k vectors, batch 8", "VecSet"): None, ("2k vectors, batch 8", "LaGeM"): (0.7714, 53791),
    ("2k vectors, batch 4", "VecSet"): (0.6902, 54543), ("2k vectors, batch 4", "LaGeM"): (0.4853, 31662),
}  # fmt: skip


def timed(step, warm=WARM, repeats=10):
    """Median seconds of `step` and its peak memory in GiB, from the call after the warm ones on."""
    for number in range(warm):
        step(number)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step(warm)
    torch.cuda.synchronize()
    times = []
    for number in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step(number)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30


def random_batch(points, batch, seed):
    generator = rng(seed, device="cuda")
    cloud = F.normalize(torch.randn(batch, points, 3, generator=generator, device="cuda"), dim=2)
    queries = torch.randn(batch, QUERIES, 3, generator=generator, device="cuda")
    return cloud, queries, queries.norm(dim=2) < 1.5


def measure_ours(config, batch, launched):
    torch.manual_seed(0)
    device = torch.device("cuda")
    codec = Lagem(config).to(device).train()
    run = RunConfig(steps=1000, lr=1e-5, compile=True)
    workers, optimizer = Workers("cuda"), make_optimizer(codec, run)
    model = CodecLoss(codec, "bf16", device)
    batches = [random_batch(config.points, batch, seed) for seed in range(2)]
    finest = config.tokens[-1]

    def with_order(made):
        cloud, queries, inside = made
        return OccupancyBatch(PointInputs(cloud, farthest_points(cloud, finest), 256), queries, inside, QUERIES // 2)

    def work(made, generator):
        return update(model, [(with_order(made), generator)], 0, run, workers, optimizer)

    with FlopCounterMode(display=False) as counter:
        model(with_order(batches[0]), 0, rng(0, device="cuda"))[0].backward()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    with compiled(model, codec, run, workers):
        recorded = None if launched else RecordedStep(work, optimizer, device)

        def step(number):
            if recorded is not None:
                recorded(batches[number % 2], number)
            else:
                work(batches[number % 2], rng(0, number, device="cuda"))

        seconds, memory = timed(step)
        reserved = torch.cuda.memory_reserved() / 2**30
    cloud = batches[0][0]
    chain, _ = timed(lambda _: farthest_points(cloud, finest))
    count = sum(p.numel() for p in codec.parameters())
    return {
        "parameters": count, "seconds": seconds, "gib": memory, "reserved_gib": reserved, "farthest_points_s": chain,
        "tflop_per_step": counter.get_total_flops() / 1e12, "tflop_per_s": counter.get_total_flops() / 1e12 / seconds,
    }  # fmt: skip


def random_subset(points, batch, ratio):
    """In place of torch_cluster.fps: as many random rows of each item."""
    items = int(batch[-1]) + 1
    size = len(points) // items
    picks = torch.stack([torch.randperm(size, device=points.device)[: round(size * ratio)] for _ in range(items)])
    return (picks + torch.arange(items, device=points.device)[:, None] * size).flatten()


def fused_kv(q, kv, window_size=None):
    """flash_attn's function for packed keys and values, through torch: (B, T, H, D), (B, S, 2, H, D) -> (B, T, H, D)."""
    keys, values = kv.transpose(1, 3).unbind(2)
    return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values).transpose(1, 2).to(q.dtype).float()


def official(folder, which):
    """The published module, with what it imports and we do not need replaced."""
    flash, cluster, layers = (types.ModuleType(name) for name in ("flash_attn", "torch_cluster", "timm.models.layers"))
    flash.flash_attn_kvpacked_func = fused_kv
    flash.flash_attn_func = flash.flash_attn_qkvpacked_func = None
    cluster.fps = random_subset
    layers.DropPath = torch.nn.Dropout1d if which == "none" else PathDrop
    for name, module in (("flash_attn", flash), ("torch_cluster", cluster), ("timm.models.layers", layers)):
        sys.modules[name] = module
    for name in ("timm", "timm.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    spec = importlib.util.spec_from_file_location(f"official_{which}", Path(folder) / which / "models_ae.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if which == "vecset":
        module.Attention.forward = fused_forward
    return module


class PathDrop(torch.nn.Module):
    def __init__(self, probability=0.0):
        super().__init__()
        self.probability = probability

    def forward(self, x):
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.probability
        return x * kept / (1 - self.probability)


def fused_forward(self, x, context=None, mask=None):
    """VecSet's attention with torch's fused kernel in bf16, as the released LaGeM has it."""
    context = x if context is None else context
    keys, values = self.to_kv(context).chunk(2, -1)
    parts = [part.unflatten(2, (self.heads, -1)).transpose(1, 2).bfloat16() for part in (self.to_q(x), keys, values)]
    out = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2).float()
    return self.drop_path(self.to_out(out))


def measure_official(folder, which, case, latent, batch, points):
    torch.manual_seed(0)
    module = official(folder, which)
    if which == "lagem":
        model = module.AutoEncoder(dim=case["channels"], queries_dim=case["channels"])
        model.num_points = list(case["tokens"][::-1])
    else:
        width = case["channels"]
        model = module.KLAutoEncoder(
            dim=width, queries_dim=width, depth=24, num_inputs=points, num_latents=case["tokens"][-1], latent_dim=latent,
            heads=width // 64,
        )  # fmt: skip
    model = model.cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batches = [random_batch(points, batch, seed) for seed in range(2)]

    def step(number):
        cloud, queries, inside = batches[number % 2]
        optimizer.zero_grad(set_to_none=True)
        out = model(cloud, queries)
        loss = F.binary_cross_entropy_with_logits(out["logits"].float(), inside.float())
        if "kl" in out:
            loss = loss + 1e-3 * out["kl"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    seconds, memory = timed(step)
    return {"parameters": sum(p.numel() for p in model.parameters()), "seconds": seconds, "gib": memory}


def matrix_rate():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / 1e12 / timed(lambda _: a @ b)[0]


def guarded(name, function):
    """A result, or why there is none: out of memory is a result."""
    try:
        result = function()
    except torch.OutOfMemoryError:
        result = {"error": "out of memory"}
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    print(name, json.dumps(result), file=sys.stderr, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=8192)
    parser.add_argument("--official")
    parser.add_argument("--output")
    parser.add_argument("--launched", action="store_true", help="launch every kernel instead of recording the step")
    parser.add_argument("--recompute", default="coarse", choices=RECOMPUTE)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "points": args.points, "queries": QUERIES,
             "launched": args.launched, "recompute": args.recompute, "matrix_tflop_per_s": matrix_rate(), "cases": []}  # fmt: skip
    for name, case, latent, batch in [case for case in CASES if args.only in case[0]]:
        lagem = LagemConfig(**case, points=args.points, recompute=args.recompute)
        level = {
            "tokens": case["tokens"][-1:],
            "latent": (latent,),
            "channels": case["channels"],
            "points": args.points,
        }
        vecset = LagemConfig(**level, depth=24, bottleneck="kl", cross_heads=1, drop_path=0.1)
        for model, config in (("LaGeM", lagem), ("VecSet", vecset)):
            row = {"case": name, "model": model, "paper_a100": PAPER[name, model]}
            row["ours"] = guarded(f"{name} {model} ours", lambda c=config, b=batch: measure_ours(c, b, args.launched))
            if args.official:
                row["official"] = guarded(
                    f"{name} {model} official",
                    lambda m=model, c=case, z=latent, b=batch: measure_official(
                        args.official, m.lower(), c, z, b, args.points
                    ),
                )
            found["cases"].append(row)
    text = json.dumps(found, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")
    print(text)
    print(table(found))


def table(found):
    lines = [
        "| case | model | parameters | s / step | GiB | TFLOP/s (share) | farthest points | official s, GiB |",
        "|---" * 8 + "|",
    ]
    for row in found["cases"]:
        ours, theirs = row["ours"], row.get("official", {})
        if "error" in ours:
            lines.append(f"| {row['case']} | {row['model']} | {ours['error']} |")
            continue
        share = ours["tflop_per_s"] / found["matrix_tflop_per_s"]
        other = f"{theirs['seconds']:.3f}, {theirs['gib']:.1f}" if "seconds" in theirs else theirs.get("error", "-")
        lines.append(
            f"| {row['case']} | {row['model']} | {ours['parameters'] / 1e6:.2f}M | {ours['seconds']:.4f} | {ours['gib']:.1f} | "
            f"{ours['tflop_per_s']:.0f} ({share:.0%}) | {ours['farthest_points_s'] / ours['seconds']:.1%} | {other} |"
        )
    lines += ["", "| case | LaGeM / VecSet, ours: time, memory | official: time, memory |", "|---|---|---|"]
    for one, other in zip(found["cases"][::2], found["cases"][1::2], strict=True):
        pairs = [(one["ours"], other["ours"]), (one.get("official", {}), other.get("official", {}))]
        shares = [
            f"{a['seconds'] / b['seconds']:.3f}, {a['gib'] / b['gib']:.3f}" if "gib" in a and "gib" in b else "-"
            for a, b in pairs
        ]
        lines.append(f"| {one['case']} | {shares[0]} | {shares[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
