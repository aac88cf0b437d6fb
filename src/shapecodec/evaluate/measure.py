"""Everything that an evaluation measures of one reconstruction: distances under several protocols, and normal maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from shapecodec.errors import BadArgument
from shapecodec.evaluate.metrics import compare_all
from shapecodec.evaluate.normal_maps import NORMAL_PROTOCOLS, normal_map_scores
from shapecodec.evaluate.protocol import PROTOCOLS
from shapecodec.mesh import Mesh, Similarity

MEASURES = (*PROTOCOLS, *NORMAL_PROTOCOLS)


def measure(
    prediction: Mesh,
    reference: Mesh,
    names: Sequence[str],
    *,
    resolution: int | None,
    points: int | None,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Any]]:
    """{protocol: result} of `metrics.compare_all` and `normal_maps.normal_map_scores`, in the order of `names`.

    Args:
        prediction: in the frame of the reference.
        reference: in the unit cube of `Mesh.normalise`.
        names: of `MEASURES`.
        resolution: voxels an axis, or None.
        points: samples on each mesh; None is each protocol's own number.
        seed: of the samples.
        device: where distances are found; normal maps are drawn on the CPU.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name in NORMAL_PROTOCOLS:
            found[name] = normal_map_scores(prediction, reference, NORMAL_PROTOCOLS[name])
    found.update(
        compare_all(
            prediction, reference, resolution=resolution, points=points, seed=seed, frame=Similarity(), device=device,
            protocols=[name for name in names if name in PROTOCOLS],
        )
    )  # fmt: skip
    return {name: found[name] for name in names}


def describe_measure(name: str) -> dict[str, Any]:
    """JSON-ready: `name`, `digest` of all that decides the numbers, `definitions`, and those deciding numbers.

    Raises:
        BadArgument: no such protocol.
    """
    if name in PROTOCOLS:
        protocol = PROTOCOLS[name]
        return {**protocol.as_dict(), "digest": protocol.digest, "definitions": dict(protocol.definitions)}
    if name not in NORMAL_PROTOCOLS:
        raise BadArgument(f"unknown protocol '{name}'.", where="--protocols", hint=f"some of {', '.join(MEASURES)}.")
    normals = NORMAL_PROTOCOLS[name]
    deciding = {"name": name, "views": asdict(normals.views), "mask": normals.mask()}
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
    return {**deciding, "digest": digest, "definitions": dict(normals.definitions)}
