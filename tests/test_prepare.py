"""The verb prepare: its JSON, its file, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from shapecodec import cli
from shapecodec.io.mesh_files import read_mesh, write_mesh
from shapecodec.mesh import Mesh

KEYS = {
    "input", "output", "stage", "resolution", "thickness", "tolerance", "device", "seed", "source", "mesh",
    "distance_voxels", "seconds",
}  # fmt: skip


@pytest.fixture
def lidless(tmp_path: Path) -> Path:
    """An open box of 10 x 20 x 5, far from the origin."""
    corners = torch.cartesian_prod(torch.tensor([0.0, 10]), torch.tensor([0.0, 20]), torch.tensor([0.0, 5])) + 1000
    faces = torch.tensor([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                          [0, 2, 6], [0, 6, 4]])  # fmt: skip
    path = tmp_path / "lidless.ply"
    write_mesh(Mesh(corners, faces), path)
    return path


def call(capfd, *arguments: object) -> tuple[int, dict]:
    code = cli.run([str(a) for a in (*arguments, "--json")])
    return code, json.loads(capfd.readouterr().out)


def test_written_file_leaks(capfd, lidless: Path, tmp_path: Path):
    output = tmp_path / "closed.ply"
    code, values = call(
        capfd, "prepare", lidless, output, "--watertight", "--resolution", 64, "--points", 2000, "--device", "cpu"
    )
    assert code == 0 and set(values) == KEYS
    assert not values["source"]["watertight"] and values["mesh"]["watertight"]
    read = read_mesh(output)
    assert read.is_watertight() and len(read.faces) == values["mesh"]["faces"]
    assert list(values["seconds"]) == ["load", "watertight", "distances", "total"]
    assert values["distance_voxels"]["from_input"]["max"] < 1.0
    assert values["distance_voxels"]["to_input"]["max"] > 5.0  # the lid
    low, high = read.bounds()
    assert (
        float((low - 1000).abs().max()) < 0.2 and float((high - torch.tensor([1010.0, 1020, 1005])).abs().max()) < 0.2
    )
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in page] == []


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--watertight", "--resolution", "60"],
        ["--watertight", "--thickness", "0"],
        ["--watertight", "--points", "0"],
    ],
)
def test_wrong_flags_do_work_first(capfd, lidless: Path, tmp_path: Path, flags: list[str]):
    code, values = call(capfd, "prepare", lidless, tmp_path / "out.ply", *flags)
    assert code == 1 and values["error"]["kind"] == "BadArgument"
    assert not (tmp_path / "out.ply").exists()


def test_output_is_the_input(capfd, lidless: Path):
    before = lidless.read_bytes()
    code, values = call(capfd, "prepare", lidless, lidless, "--watertight")
    assert code == 1 and "over the input" in values["error"]["message"]
    assert lidless.read_bytes() == before
