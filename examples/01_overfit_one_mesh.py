"""Train a small LoG3D on one mesh, on a CPU, and look at what it learned: a few minutes from nothing to a picture.

    python examples/01_overfit_one_mesh.py [MESH] [STEPS]

A codec that saw a single mesh knows nothing else; this shows the parts and how they fit, not what the codec can do.
"""

import sys
import time
from pathlib import Path

import torch

from shapecodec import metrics, read_mesh, write_mesh
from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.mesh import Similarity
from shapecodec.render import contact_sheet
from shapecodec.rng import rng

RESOLUTION = 64  # voxels an axis
BLOCKS = 64  # a step sees so many of the mesh's blocks: a place and its surroundings


def main() -> None:
    default = Path(__file__).parents[1] / "src/shapecodec/assets/locomotive.drc"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 150

    # The mesh goes into the unit cube; `frame` leads back. The codec reads its distance field in blocks of 8^3 voxels.
    mesh, frame = read_mesh(path).normalise()
    torch.manual_seed(0)
    codec = Log3D(Log3DConfig(resolution=RESOLUTION, width=8, depth=1, heads=4, convs_per_block=1))
    inputs = codec.prepare(mesh)
    print(f"{path.name}: {len(mesh.faces):,} triangles, {inputs.tokens:,} active blocks at {RESOLUTION}^3")

    # A training loop in ten lines; `shapecodec train` adds averages, checkpoints, resuming and several devices.
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    began = time.perf_counter()
    for step in range(steps):
        place = inputs.grid.coords[torch.randint(inputs.tokens, (1,), generator=rng(0, step, purpose="place"))]
        near = (inputs.grid.coords - place).abs().amax(1).argsort(stable=True)[:BLOCKS].sort().values
        loss = codec.loss(inputs.crop(near), step, rng(0, step, purpose="noise"))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            error = float(loss.terms["near_vox"])
            print(
                f"step {step:4}  error of the field near the surface {error:.3f} voxel  {time.perf_counter() - began:4.0f} s"
            )

    # There and back: mesh -> latents -> field -> surface.
    codec.eval()
    with torch.inference_mode():
        latents = codec.encode(inputs)
        rebuilt = codec.decode(latents).to_mesh()
    level = latents.levels[0]
    numbers = metrics.compare(rebuilt, mesh, resolution=RESOLUTION, points=100_000, frame=Similarity())
    distance = numbers["exact"]["accuracy_voxels"]
    print(f"latents: {len(level.feats):,} x {level.feats.shape[1]} numbers")
    print(f"distance to the input: mean {distance['mean']:.3f} voxel, p99 {distance['p99']:.3f} voxel")
    write_mesh(rebuilt.transformed(frame, inverse=True), "overfit.glb")  # in the mesh's own scale and position
    contact_sheet(mesh, rebuilt, resolution=RESOLUTION, title=f"{path.name}   overfit for {steps} steps").save(
        "overfit.png"
    )
    print("wrote overfit.glb and overfit.png")


if __name__ == "__main__":
    main()
