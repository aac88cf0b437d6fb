"""How many voxels a view of Focusing needs, and what finding them costs; as JSON.

    python bench/focusing_selection.py MESH [MESH ...] --resolution 128          # 512^3 output
    python bench/focusing_selection.py MESH --resolution 256 --backend reference

`carved` counts kept voxels by where the depth is read (footprint is ours, centre the paper's) and by r in latent voxels.
`halo` is what an encoder of so many blocks has to see (windows of 8) for the carved, or carved and zoomed, voxels to be exact.
All counts are means over the views. Times are of the wall clock, in seconds, of a second call.
"""

import argparse
import json
import statistics
import time

import torch

from shapecodec.camera import Camera, orbit
from shapecodec.codecs.focusing import carve, encoder_needs, zoom
from shapecodec.io.mesh_files import read_mesh
from shapecodec.latents import Latents, Level
from shapecodec.ops.voxelise import voxelise
from shapecodec.render.raster import rasterise
from shapecodec.rng import rng

IMAGE = 518
EYES = [(20, 15), (200, -30)]
BLOCKS = (1, 2, 4, 8, 12)


def timed(run, device, repeats=1):
    """The result and the median time of the repeats; the first call is not counted."""
    result, times = run(), []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return result, round(statistics.median(times), 4)


def needed(grid, rows):
    """Voxels that an encoder of each depth must see for these rows."""
    wanted = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    wanted[rows] = True
    return {str(blocks): int(encoder_needs(grid, wanted, blocks).sum()) for blocks in BLOCKS}


def of_view(grid, latents, mesh, camera, view, device):
    depth = camera.to_lengths(torch.from_numpy(rasterise(mesh, camera).depth))[None].to(device)
    carved, seconds = timed(lambda: carve(latents, [camera], depth), device)
    zoomed, zoom_seconds = timed(lambda: zoom(carved.latents, [camera], rng(view), totals=[len(grid)]), device)
    variants = {
        f"{lookup} r={r}": len(carve(latents, [camera], depth, lookup=lookup, threshold=r).rows)
        for lookup in ("footprint", "centre")
        for r in (0.5, 1.0, 2.0)
    }
    return {
        "carved": variants,
        "zoomed": len(zoomed.rows),
        "halo_carved": needed(grid, carved.rows),
        "halo_zoomed": needed(grid, carved.rows[zoomed.rows]),
        "seconds": {"carve": seconds, "zoom": zoom_seconds},
    }


def mean(rows):
    """Nested dictionaries averaged key by key."""
    if isinstance(rows[0], dict):
        return {key: mean([row[key] for row in rows]) for key in rows[0]}
    return round(statistics.mean(rows), 4 if isinstance(rows[0], float) else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--resolution", type=int, default=128, help="of the latent")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    for path in args.meshes:
        mesh = read_mesh(path)
        low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
        mesh = type(mesh)((mesh.vertices - (low + high) / 2) / float((high - low).max()) * 0.999, mesh.faces)
        arrays = mesh.vertices.to(args.device), mesh.faces.to(args.device)
        options = {"dilation": 1.0, "backend": args.backend}
        grid, seconds = timed(lambda a=arrays, o=options: voxelise(*a, args.resolution, **o), args.device)
        level = Level(torch.zeros(len(grid), 8, device=args.device), grid.offsets, grid.coords, grid.resolution)
        latents = Latents((level,), 4 * grid.resolution)
        views = []
        for view, eye in enumerate(EYES):
            camera = Camera.perspective(orbit(*eye, 2.0), (0, 0, 0), 40.0, (IMAGE, IMAGE))
            views.append(of_view(grid, latents, mesh, camera, view, args.device))
        row = {"mesh": path.rsplit("/", 1)[-1], "faces": len(mesh.faces), "resolution": args.resolution}
        row |= {"voxels": len(grid), "voxelise_seconds": seconds, **mean(views)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
