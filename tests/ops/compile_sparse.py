"""Compiles the kernels of sparse convolutions for an H100 and prints what was found, as JSON; run by `test_sparse_kernels`.

A program of its own: Triton compiles only where its interpreter was off when it was first imported.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

from shapecodec.ops.sparse_conv import triton as surfaces
from shapecodec.ops.sparse_conv import triton_bricks as bricks
from shapecodec.ops.subdivide_conv import triton as subdivision

HALVES = {"feats", "weight", "grad", "out"}
FLOATS = {"bias", "partial"}
WIDE = {"targets", "sources"}
NUMBERS = {"count", "length", "channels", "out_channels"}
TILES = {"PRECISION": "ieee", "HAS_BIAS": True}

CASES = [
    (surfaces._convolve_kernel, {"ROWS": 128, "COLUMNS": 256, "REST": 0, "DEPTH": 64}, 8, 5),
    (surfaces._convolve_kernel, {"ROWS": 256, "COLUMNS": 64, "REST": 32, "DEPTH": 32}, 8, surfaces.SHALLOW_STAGES),
    (surfaces._partial_gradient_kernel, {"ROWS": 128, "COLUMNS": 128, "REST": 64, "DEPTH": 64}, 8, 5),
    (bricks._brick_convolve_kernel, {"ROWS": 256, "COLUMNS": 64, "REST": 32, "DEPTH": 32}, 8, bricks.SHALLOW_STAGES),
    (bricks._brick_convolve_kernel, {"ROWS": 128, "COLUMNS": 128, "REST": 64, "DEPTH": 64}, 8, bricks.STAGES),
    (
        bricks._brick_gradient_kernel,
        {"ROWS": bricks.GRADIENT_ROWS, "COLUMNS": 64, "REST": 32, "DEPTH": bricks.GRADIENT_DEPTH},
        bricks.GRADIENT_WARPS,
        bricks.GRADIENT_STAGES,
    ),
    (subdivision._convolve_kernel, {"ROWS": 128, "COLUMNS": 128, "REST": 64, "DEPTH": 64}, 8, subdivision.STAGES),
    (subdivision._feats_gradient_kernel, {"ROWS": 128, "COLUMNS": 256, "REST": 0, "DEPTH": 64}, 8, subdivision.STAGES),
    (
        subdivision._feats_gradient_kernel,
        {"ROWS": 128, "COLUMNS": 128, "REST": 64, "DEPTH": 32},
        8,
        subdivision.SHALLOW_STAGES,
    ),
    (subdivision._weight_gradient_kernel, {"ROWS": 128, "COLUMNS": 128, "REST": 64, "DEPTH": 64}, 8, 5),
]


def kind(name: str) -> str:
    """Triton's name for the type of an argument."""
    if name in NUMBERS:
        return "i32"
    if name in HALVES:
        return "*bf16"
    return "*fp32" if name in FLOATS else "*i64" if name in WIDE else "*i32"


def compiled(kernel, tile, warps, stages):
    """What the assembler says of one kernel: spilled bytes, remarks on products that wait; and its shared memory."""
    names = kernel.arg_names
    constants = {name: value for name, value in {**TILES, **tile}.items() if name in names}
    types = {name: "constexpr" if name in constants else kind(name) for name in names}
    whole = {"channels", "out_channels"}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[name][0] == "*" or name in whole
    }
    source = triton.compiler.ASTSource(kernel, types, constants, aligned)
    options = {"num_warps": warps, "num_stages": stages}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernel.ptx"
        text.write_text(built.asm["ptx"])
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name", "sm_90a", text, "-o", f"{folder}/kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "kernel": f"{kernel.__module__.split('.')[-2]}.{kernel.__name__} {tile}",
        "products": built.asm["ptx"].count("wgmma.mma_async"),
        "shared": built.metadata.shared,
        "spills": sum(
            int(line.split(" bytes spill stores")[0].split()[-1]) for line in said.splitlines() if "spill" in line
        ),
        "waits": [line for line in said.splitlines() if "wgmma" in line],
    }


if __name__ == "__main__":
    json.dump([compiled(*case) for case in CASES], sys.stdout)
