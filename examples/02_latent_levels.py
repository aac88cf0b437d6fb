"""What each level of LaGeM's latents holds (Figure 14 of the paper): replace levels by noise, decode, look.

    python examples/02_latent_levels.py [MESH] [CODEC] [RESOLUTION]

Standardised latents have mean 0 and variance 1, so a level can be replaced by standardised Gaussian noise and the decoder still
meets numbers of the kind that it knows. What stays of the shape is what the other levels carry. Minutes on two CPU cores.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from shapecodec import load_codec, read_mesh
from shapecodec.codecs.lagem import Lagem
from shapecodec.errors import BadMesh
from shapecodec.latents import Latents
from shapecodec.render.shade import render
from shapecodec.render.sheet import framed_cameras
from shapecodec.rng import rng

CELL = (300, 300)  # pixels of a picture
CASES = ((), (1,), (2,), (3,), (1, 2), (2, 3))  # levels that become noise, numbered as in the paper: 1 is the finest


def with_noise(codec: Lagem, latents: Latents, levels: tuple[int, ...]) -> Latents:
    """The same latents with these levels replaced by standardised Gaussian noise."""
    changed = list(latents.levels)
    for number in levels:
        place = len(changed) - number
        drawn = torch.randn(changed[place].feats.shape, generator=rng(0, number, purpose="noise"))
        changed[place] = replace(changed[place], feats=codec.bottlenecks[place].standardise(drawn))
    return replace(latents, levels=tuple(changed))


@torch.inference_mode()
def main() -> None:
    root = Path(__file__).parents[1]
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "src/shapecodec/assets/nefertiti.drc"
    codec = load_codec(sys.argv[2] if len(sys.argv) > 2 else "lagem-small")
    resolution = int(sys.argv[3]) if len(sys.argv) > 3 else 128
    unit, _ = codec.normalise(read_mesh(path))
    latents = codec.encode(codec.prepare(unit, resolution=resolution))
    cameras = framed_cameras(unit, CELL)[:2]

    columns = [("original", unit)]
    for levels in CASES:
        name = "all levels kept" if not levels else "noise in " + ", ".join(f"Z{number}" for number in levels)
        try:
            columns.append((name, codec.decode(with_noise(codec, latents, levels)).to_mesh()))
        except BadMesh:  # nothing of it is inside any more: an empty picture says so
            columns.append((name + ": empty", None))
        print(columns[-1][0], flush=True)

    sheet = Image.new("RGB", (CELL[0] * len(columns), CELL[1] * len(cameras) + 30), "white")
    write = ImageDraw.Draw(sheet)
    for column, (name, mesh) in enumerate(columns):
        write.text((column * CELL[0] + 10, 8), name, fill=(34, 37, 43))
        for row, camera in enumerate(cameras if mesh is not None else ()):
            sheet.paste(render(mesh, camera), (column * CELL[0], 30 + row * CELL[1]))
    sheet.save("levels.png")
    print("wrote levels.png")


if __name__ == "__main__":
    main()
