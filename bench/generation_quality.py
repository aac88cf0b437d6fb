"""What a generator's shapes are worth: set scores beside their floor, the nearest training shape beside each, a control by level.

    python bench/generation_quality.py runs/cascade --data shared/data --out results/cascade
    python bench/generation_quality.py runs/cascade --data shared/data --category gear --guidance 2 --samples 32 --out gears

Writes samples.png (each sample and, to its right, the nearest shape of the training set, with their Chamfer distance), levels.png
(the control of Figure 13: rows that keep the coarsest level of their first shape, and the two coarsest), and scores.json, which is
printed, too: MMD, coverage and 1-NNA (`evaluate.generation`) against held-out shapes, the same scores of training shapes as the
floor, and for the memorisation check the distances from samples to the training set beside those from held-out shapes to it: a
generator that copies has smaller ones. The reference is what the generator was trained to make: the data's test and validation
splits and procedural shapes of a seed that training never saw, in the mix of the run; meshes without an inside are left out.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from shapecodec.commands.generate import open_decoder
from shapecodec.data.collection import MeshCollection, build_families
from shapecodec.data.latent_cache import SOLIDS, LatentSourceConfig
from shapecodec.data.shape_pools import is_inside, unit_sphere
from shapecodec.errors import BadMesh
from shapecodec.evaluate.generation import generation_scores, shape_clouds
from shapecodec.generate.guidance import Guidance
from shapecodec.generate.pipeline import Request, generate_latents
from shapecodec.generate.registry import load_generator
from shapecodec.io.codec_locate import locate
from shapecodec.render.gallery import gallery
from shapecodec.train.folder import read_config

HELD_OUT_SEED = 104_729


def source_of(generator):
    """The settings that the generator's run had, or the recipe's where only its folder is left."""
    run = locate(generator, "generator").parent
    if (run / "log.jsonl").is_file():
        return LatentSourceConfig.from_json(read_config(run)["source"])
    return LatentSourceConfig()


def solids(meshes, device):
    """The meshes of a collection that have an inside, as training takes them, and their categories."""
    kept = []
    for index in range(len(meshes)):
        mesh = unit_sphere(meshes.mesh(index, device))
        points, faces = mesh.sample(1024, torch.Generator(device=device).manual_seed(index))
        beside = points + mesh.face_normals()[faces] * 0.005 * torch.randn(1024, 1, device=device)
        if float(is_inside(beside, mesh).float().mean()) >= 0.01:
            kept.append((mesh.to("cpu"), meshes.entries[index].category))
    return kept


def shapes_of(args, source, split, seed, count, device):
    """`count` shapes of a split and of procedural families, in the run's mix; of one category where it is given."""
    real = [] if args.data is None else [
        pair for name in split for pair in solids(MeshCollection.from_folder(args.data, name), device)
    ]  # fmt: skip
    families = tuple(f for f in source.families or SOLIDS if args.category in (None, f))
    made = solids(build_families(families, max(2, count // max(len(families), 1)), seed), device) if families else []
    real = [pair for pair in real if args.category in (None, pair[1])]
    share = source.real if real and made else float(bool(real))
    order = torch.Generator().manual_seed(0)
    picked = [real[i] for i in torch.randperm(len(real), generator=order)[: round(share * count)].tolist()]
    rest = [made[i] for i in torch.randperm(len(made), generator=order)[: count - len(picked)].tolist()]
    return [mesh for mesh, _ in picked + rest]


def decoded(codec, latents, resolution):
    try:
        return codec.decode(latents.to(codec.device)).to_mesh(resolution).to("cpu")
    except BadMesh:
        return None


def chamfer(one, two, device):
    """(A, B) mean squared distances to the nearest point, both directions added, on the device."""
    two = two.to(device)
    rows = []
    for cloud in one.to(device):
        parts = [torch.cdist(cloud[None], part).square() for part in two.split(16)]
        rows.append(torch.cat([part.amin(1).mean(1) + part.amin(2).mean(1) for part in parts]))
    return torch.stack(rows).cpu()


def sampled(model, args, count, **options):
    categories = () if args.category is None else (args.category,)
    request = Request(count, args.seed, categories, args.steps, Guidance(args.guidance), batch=args.batch)
    return list(generate_latents(model, replace(request, **options)))


def occupancy(codec, latents, side=32):
    """(side^3,) bool: cells of a coarse grid that hold something, by the centres of their eighths; walls fall between their own."""
    axis = (torch.arange(2 * side, device=codec.device) + 0.5) / (2 * side) - 0.5
    field = codec.decode(latents)
    inside = field.sample(torch.cartesian_prod(axis, axis, axis)) > field.level
    return inside.view(side, 2, side, 2, side, 2).any(5).any(3).any(1).flatten()


def level_control(args, model, codec):
    """Figure 13: the picture, and the IoU on a grid of 32^3 of shapes that share levels with the first one of their row."""
    rows, captions, ious = [], [], {}
    for levels in (1, 2):
        made = sampled(model, args, 6, fix_levels=levels)
        rows += [decoded(codec, each, args.resolution) for each in made]
        kept = "Z3 kept" if levels == 1 else "Z3 and Z2 kept"
        captions += ["the shape", *[kept] * 5]
        first, *others = (occupancy(codec, each) for each in made)
        ious[kept] = [float((first & other).sum() / max(int((first | other).sum()), 1)) for other in others]
    gallery(rows, captions, title="Levels kept, the finer ones generated anew", columns=6).save(args.out / "levels.png")
    return ious


def memorisation(args, meshes, clouds, train, train_clouds, held_clouds, device):
    """Distances to the training set, and the picture."""
    near, held = chamfer(clouds, train_clouds, device), chamfer(held_clouds, train_clouds, device)
    distance, nearest = near.min(1)
    pairs, captions = [], []
    for index in range(min(len(meshes), args.shown)):
        pairs += [meshes[index], train[int(nearest[index])]]
        captions += [f"sample {index}", f"nearest in training   {1e3 * float(distance[index]):.2f}"]
    title = "Samples, each beside the nearest training shape"
    gallery(pairs, captions, title=title, subtitle="Chamfer distance x 1000", columns=6).save(args.out / "samples.png")
    copied = float((distance < held.min(1).values.quantile(0.05)).float().mean())
    return {
        "nearest_training_shape": {
            "sample_median": float(distance.median()),
            "held_out_median": float(held.min(1).values.median()),
        },
        "closer_than_5_percent_of_held_out": copied,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("--codec")
    parser.add_argument("--data", type=Path, help="folder with a manifest.csv; procedural shapes alone without it")
    parser.add_argument("--category")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--shown", type=int, default=12)
    parser.add_argument("--training", type=int, default=1000, help="shapes of the training set that are compared with")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device, began = torch.device(args.device), time.perf_counter()
    model = load_generator(args.generator, device)
    codec, source = open_decoder(model, args.codec, str(device)), source_of(args.generator)
    with torch.inference_mode():
        meshes = [decoded(codec, each, args.resolution) for each in sampled(model, args, args.samples)]
        kept = [mesh for mesh in meshes if mesh is not None]
        if len(kept) < 2:
            raise SystemExit(f"only {len(kept)} of {len(meshes)} samples have a surface: nothing can be scored.")
        train = shapes_of(args, source, ("train",), source.seed, args.training, device)
        held = shapes_of(args, source, ("val", "test"), HELD_OUT_SEED, args.samples, device)
        clouds, train_clouds, held_clouds = (shape_clouds(each, args.points) for each in (kept, train, held))
        result = {
            "generator": model.name, "generator_hash": model.codec_hash, "category": args.category, "guidance": args.guidance,
            "steps": args.steps, "samples": len(meshes), "empty": len(meshes) - len(kept),
            "watertight": sum(mesh.is_watertight() for mesh in kept), "training_shapes": len(train),
            "scores": generation_scores(clouds, held_clouds),
            "floor_of_training_shapes": generation_scores(train_clouds[: len(clouds)], held_clouds),
            **memorisation(args, kept, clouds, train, train_clouds, held_clouds, device),
        }  # fmt: skip
        result["iou_of_shapes_that_share_levels"] = level_control(args, model, codec)
    result["seconds"] = time.perf_counter() - began
    (args.out / "scores.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
