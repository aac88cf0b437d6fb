import json
from pathlib import Path

import pytest
import torch
from torch import nn

from shapecodec.codecs.base import Codec, Loss
from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.benchmark import Subject, evaluate_codec
from shapecodec.evaluate.summary import markdown_table, summarise
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh

CUBE = Mesh(
    torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]),
    torch.tensor([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                  [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]),
)  # fmt: skip


class Shifted:
    """A field whose surface is the mesh moved along x."""

    def __init__(self, mesh: Mesh, shift: float) -> None:
        self.mesh, self.shift = mesh, shift

    def to_surface(self, *, surface: str) -> tuple[Mesh, None]:
        return Mesh(self.mesh.vertices + torch.tensor([self.shift, 0.0, 0.0]), self.mesh.faces), None


class OffByHalfAVoxel(Codec):
    kind = "test"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def prepare(self, mesh: Mesh, rng=None, *, resolution=None):
        return mesh, resolution

    def encode(self, inputs, rng=None) -> Latents:
        self.inputs = inputs
        return Latents((Level(torch.rand(4, 2), torch.tensor([0, 4])),), inputs[1], codec="test")

    def decode(self, latents: Latents) -> Shifted:
        return Shifted(self.inputs[0], 0.5 / self.inputs[1])

    def oracle(self, inputs) -> Shifted:
        return Shifted(inputs[0], 0.0)

    def loss(self, batch, step, rng) -> Loss:
        raise NotImplementedError


def load(path: Path) -> Mesh:
    if "bad" in path.name:
        raise BadFile("the file is empty.", where=path.name)
    return CUBE


SUBJECTS = [
    Subject(Path("a.obj"), level="L1"),
    Subject(Path("bad.obj"), level="L1"),
    Subject(Path("b.obj"), level="L2"),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_carry_numbers_and_errors(workers: int, tmp_path: Path):
    seen: list[dict] = []
    result = evaluate_codec(
        OffByHalfAVoxel(), SUBJECTS, resolutions=[64], surfaces=["snapped"], points=2000, workers=workers,
        load=load, scratch=tmp_path, progress=seen.append,
    )  # fmt: skip
    assert (result.done, result.meshes, result.stopped) == (3, 3, "")
    good, bad, other = result.rows
    assert "the file is empty" in bad["error"] and good["error"] is None and other["name"] == "b"
    # half a voxel along x: two of six sides are off by .5, the others by nothing but their rims
    assert good["prediction"]["exact"]["accuracy_voxels"]["mean"] == pytest.approx(1 / 6, rel=0.1)
    assert good["oracle"]["exact"]["accuracy_voxels"]["max"] < 1e-4
    assert good["tokens"] == 4 and good["bytes"] > 0
    assert set(good["seconds"]) == {"load", "prepare", "encode", "decode", "extract"}
    assert len(seen) == 2 and not list(tmp_path.iterdir())
    assert json.loads(json.dumps(result.as_dict()))["done"] == 3


def test_summary_by_level():
    result = evaluate_codec(OffByHalfAVoxel(), SUBJECTS, resolutions=[32, 64], points=500, workers=0, load=load)
    summary = summarise(result.rows)
    assert [(entry["resolution"], entry["level"], entry["meshes"], entry["failed"]) for entry in summary] == [
        (32, "all", 2, 1), (32, "L1", 1, 1), (32, "L2", 1, 0), (64, "all", 2, 1), (64, "L1", 1, 1), (64, "L2", 1, 0),
    ]  # fmt: skip
    assert summary[0]["prediction"]["accuracy_mean_voxels"] == pytest.approx(1 / 6, rel=0.2)
    table = markdown_table(summary, ["accuracy_mean_voxels"])
    assert table.count("\n") == 7 and "2 (1 failed)" in table


def test_budget_stops_between_meshes_and_says_so():
    result = evaluate_codec(
        OffByHalfAVoxel(), SUBJECTS, resolutions=[32], points=100, workers=0, load=load, budget_s=0.0
    )
    assert result.done == 0 and result.rows == [] and "0 of 3 meshes" in result.stopped


def test_nothing_to_do_is_an_error():
    with pytest.raises(BadArgument, match="0 meshes"):
        evaluate_codec(OffByHalfAVoxel(), [], resolutions=[32])


def test_level_in_which_every_mesh_failed_is_listed():
    row = {"resolution": 64, "surface": "snapped", "tokens": 1, "bytes": 1, "seconds": {"load": 1.0}}
    rows = [{**row, "level": "L1"}, {**row, "level": "L2", "surface": None, "error": "BadMesh"}]
    summary = summarise(rows)
    assert [(e["level"], e["meshes"], e["failed"]) for e in summary] == [("all", 1, 1), ("L1", 1, 0), ("L2", 0, 1)]
    assert "0 (1 failed)" in markdown_table(summary)
