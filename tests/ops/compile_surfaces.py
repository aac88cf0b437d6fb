"""Compiles the kernels of extraction and pictures for an H100 and prints their spilled bytes, as JSON; run by a test.

A program of its own: Triton compiles only where its interpreter was off when it was first imported.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

from shapecodec.ops.flex_surface.triton import backward, corners, forward, variation
from shapecodec.ops.rasterise import triton as raster
from shapecodec.render.triton import outlines, pictures, shading

WIDE = {"index", "ends", "emitted", "cuts", "cut_ends", "faces", "keys", "ranks", "buffer"}
NARROW = {"neighbours", "rows", "slots", "incident", "owned", "face", "edges", "heads", "following", "points", "lost"}
NUMBERS = {
    "count", "resolution", "vertex_count", "edge_count", "by_voxel", "by_corner", "by_channel", "size", "last", "vertices",
    "width", "height", "pixels", "walk", "stride", "channels", "area",
}  # fmt: skip
OTHER = {"switches": "*i8", "groups": "*i8", "loops": "*i16", "codes": "*i16", "masks": "*u8", "front": "*i1"}

CASES = [
    (forward.count_voxels, {"BLOCK": 128}, {}),
    (forward.list_cut, {"BLOCK": 1024}, {}),
    (forward.place_vertices, {"BLOCK": 32}, {"coords": "*i32", "vertices": "*fp32"}),
    (forward.write_quads, {"CENTRES": True, "BLOCK": 64}, {"vertices": "*fp32"}),
    (backward.centre_gradients, {"BLOCK": 64}, {"vertices": "*fp32"}),
    (backward.voxel_gradients, {"CENTRES": True, "BLOCK": 16}, {}),
    (backward.corner_gradients, {"BLOCK": 128}, {}),
    (corners.own_corners, {"BLOCK": 128}, {}),
    (corners.write_keys, {"BLOCK": 128}, {"coords": "*i32"}),
    (corners.link_corners, {"BLOCK": 128}, {}),
    (corners.mean_corners, {"CHANNELS": 4, "BLOCK": 64}, {}),
    (corners.mean_gradients, {"CHANNELS": 4, "BLOCK": 64}, {}),
    (variation.corner_lengths, {"CHANNELS": 1, "BLOCK": 256}, {}),
    (variation.length_gradients, {"CHANNELS": 1, "BLOCK": 256}, {}),
    (outlines.link_edges, {"BLOCK": 1024}, {}),
    (outlines.find_outlines, {"TABLE": False, "BLOCK": 32}, {}),
    (outlines.blend_pixels, {"WIDE": 8, "BLOCK": 128}, {}),
    (outlines.blend_gradients, {"WIDE": 8, "BLOCK": 128}, {}),
    (shading.pixel_weights, {"BLOCK": 128}, {}),
    (shading.pixel_weight_gradients, {"BLOCK": 128}, {}),
    (shading.pixel_values, {"WIDE": 8, "BLOCK": 128}, {}),
    (shading.pixel_value_gradients, {"VALUES": True, "WEIGHTS": True, "WIDE": 8, "BLOCK": 128}, {}),
    (pictures.project_vertices, {"BLOCK": 256}, {"views": "i32"}),
    (pictures.project_gradients, {"BLOCK": 256}, {"views": "i32"}),
    (pictures.draw_pixels, {"VERTEX": False, "TURN": True, "BLOCK": 128}, {}),
    (pictures.pixel_gradients, {"VERTEX": True, "TURN": True, "BLOCK": 128}, {}),
    (pictures.pixel_gradients, {"VERTEX": False, "TURN": True, "BLOCK": 128}, {}),
    (raster._project, {"BLOCK": 256}, {"depth": "*fp64"}),
    (raster._unpack, {"BLOCK": 256}, {}),
]


def kind(name: str) -> str:
    """Triton's name for the type of an argument."""
    if name in NUMBERS:
        return "i32"
    return "*i64" if name in WIDE else "*i32" if name in NARROW else OTHER.get(name, "*fp32")


def compiled(kernel, tile, special):
    """The kernel, and how many bytes the assembler spills."""
    types = {name: "constexpr" if name in tile else special.get(name, kind(name)) for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, types, tile)
    options = {"num_warps": 1 if kernel is outlines.find_outlines else 4}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernel.ptx"
        text.write_text(built.asm["ptx"])
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name", "sm_90a", text, "-o", f"{folder}/kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = [int(line.split(" bytes spill stores")[0].split()[-1]) for line in said.splitlines() if "spill" in line]
    return {"kernel": f"{kernel.__name__} {tile}", "spills": sum(spilled)}


if __name__ == "__main__":
    json.dump([compiled(*case) for case in CASES], sys.stdout)
