"""What is measured through pictures and sets of shapes: seconds and values beside known libraries in the same run; as JSON.

    python bench/views.py                            # a torus of 102,400 faces
    python bench/views.py --mesh chair.obj --shell 512

NMSE and SNE of the eps-surface of the exact field show how the scores fall with resolution (`--shell`, several allowed);
Canny beside scikit-image on one of the pictures; the outer surface beside Open3D's rays from 20,000 points in the same
100 directions; the auction beside scipy's exact assignment on clouds of 512 and 2,048 points. `process_seconds` sums over
threads. Each time is the best of --repeats after a warm-up that compiles.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from metrics import best, shell, torus
from scipy.optimize import linear_sum_assignment
from skimage.feature import canny as known_canny

from shapecodec.evaluate.canny import canny
from shapecodec.evaluate.detail import sharp_edges, sharp_points
from shapecodec.evaluate.matching import cloud_distances, earth_movers
from shapecodec.evaluate.normal_maps import NORMALS, normal_map_scores
from shapecodec.evaluate.views import sphere_directions
from shapecodec.evaluate.visible import OUTER, OuterSurface
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh
from shapecodec.render.raster import nearest_faces
from shapecodec.rng import rng

KEYS = ("nmse", "sne", "nmse_unsigned", "sne_unsigned", "both", "overlap", "mask_share", "floor")


def seen_by_rays(mesh, points):
    """Whether a ray from 1e-4 above the point in any of the directions meets nothing (Open3D, Embree)."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(*(open3d.core.Tensor(array) for array in (mesh.numpy()[0], mesh.numpy()[1].astype(np.uint32))))
    seen = np.zeros(len(points), bool)
    for direction in sphere_directions(OUTER.count).numpy():
        origins = points + 1e-4 * direction
        rays = np.concatenate([origins, np.broadcast_to(direction, origins.shape)], 1).astype(np.float32)
        seen |= ~scene.test_occlusions(open3d.core.Tensor(rays)).numpy()
    return seen


def normals(mesh, prediction, repeats):
    """Scores with their floor, and the time with and without it."""
    result, with_floor = best(lambda: normal_map_scores(prediction, mesh), repeats)
    _, alone = best(lambda: normal_map_scores(prediction, mesh, floor=False), repeats)
    return {"faces": len(prediction.faces), **{key: result[key] for key in KEYS}, "with floor": with_floor, **alone}


def edges(mesh, repeats):
    """Canny on one component of one picture, float64, beside scikit-image."""
    face = nearest_faces(mesh, NORMALS.views.cameras(mesh)[5])[0]
    image = np.where(face >= 0, mesh.face_normals()[:, 1].numpy()[face], 0).astype(np.float64)
    ours, time = best(lambda: canny(image, 1.0, 0.66, 1.32), repeats)
    known, known_time = best(lambda: known_canny(image, 1.0, 0.66, 1.32), repeats)
    counts = {"edges": int(ours.sum()), "edges of scikit-image": int(known.sum()), "differ": int((ours != known).sum())}
    return {**counts, **time, "scikit-image": known_time}


def outer(mesh, repeats):
    """Pictures, a million visible samples, and agreement with rays."""
    surface, time = best(lambda: OuterSurface(mesh), repeats)
    _, sampling = best(lambda: surface.sample(1_000_000, rng(0, purpose="bench outer")), repeats)
    points, faces = mesh.sample(20_000, rng(0, purpose="bench rays"))
    ours, rays = surface.sees(points, faces).numpy(), seen_by_rays(mesh, points.numpy())
    shares = {"seen": ours.mean(), "seen by rays": rays.mean(), "ours only": (ours & ~rays).mean()}
    shares["rays only"] = (rays & ~ours).mean()
    return {"pictures": time, "1M samples": sampling, **{key: round(float(share), 5) for key, share in shares.items()}}


def clouds(mesh, points, repeats):
    """A pair of clouds of the mesh: both distances, and scipy's exact one."""
    one, two = (mesh.sample(points, rng(seed, purpose="bench clouds"))[0] for seed in range(2))
    (cost, bound), time = best(lambda: earth_movers(one, two), repeats)
    costs = (one.double()[:, None] - two.double()).norm(dim=-1).numpy()
    pairs, exact_time = best(lambda: linear_sum_assignment(costs), 1)
    exact = float(costs[pairs].mean())
    _, chamfer = best(lambda: cloud_distances(one[None], two[None]), repeats)
    return {
        "above the optimum": cost / exact - 1,
        "proven": cost / bound - 1,
        **time,
        "scipy": exact_time,
        "chamfer": chamfer,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="a mesh file; default a torus")
    parser.add_argument(
        "--shell", type=int, nargs="*", default=[], help="also score the eps-surface at these resolutions"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mesh = (read_mesh(options.mesh) if options.mesh else torus()).normalise()[0]
    rough = mesh.vertices + 1e-3 * torch.randn(mesh.vertices.shape, generator=rng(0, purpose="bench roughness"))
    _, salient = best(lambda: sharp_edges(mesh), options.repeats)
    _, sharp = best(lambda: sharp_points(mesh, 32_768, rng(0, purpose="bench sharp")), options.repeats)
    report = {
        "mesh": mesh.name,
        "faces": len(mesh.faces),
        "threads": options.threads,
        "normal maps, rough": normals(mesh, Mesh(rough, mesh.faces), options.repeats),
        **{f"normal maps, shell {size}": normals(mesh, shell(mesh, size), 1) for size in options.shell},
        "canny": edges(mesh, options.repeats),
        "outer surface": outer(mesh, options.repeats),
        "sharp edges": {"edges": len(sharp_edges(mesh).ends), **salient, "32,768 points": sharp},
        **{f"clouds of {points}": clouds(mesh, points, options.repeats) for points in (512, 2048)},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
