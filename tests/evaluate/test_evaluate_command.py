"""What scripts rely on: the keys of `evaluate --json`, exit codes, and the files of a run."""

import json
from pathlib import Path

import pytest
import torch
from boxes import box_folder
from PIL import Image

from shapecodec import cli
from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.evaluate.report import read_view_mesh
from shapecodec.evaluate.rows import read_rows
from shapecodec.io.mesh_files import read_mesh, write_mesh
from shapecodec.mesh import Mesh

KEYS = {"run", "settings", "shapes", "metrics", "files", "against", "seconds"}
FAST = ("--workers", 0, "--points", 200, "--protocols", "exact-v1")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec") / "small"
    Log3D(Log3DConfig(resolution=64, width=4, depth=1, heads=1, window=4, convs_per_block=1, latent=4)).save(
        folder, name="small"
    )
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return box_folder(tmp_path_factory.mktemp("data") / "boxes", "a", "b")


def call(capfd, *arguments: object) -> tuple[int, dict, str]:
    """Exit code, the one object on stdout, and stderr."""
    code = cli.run(["evaluate", *(str(a) for a in arguments), "--json"])
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 1, out
    return code, json.loads(lines[0]), err


def test_documented_key_or_flag_is_missing(capfd):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for key in KEYS:
        assert f"`{key}" in page, key
    assert cli.run(["evaluate", "--help"]) == 0
    told = capfd.readouterr().out
    for flag in (
        "--codec",
        "--meshes",
        "--data",
        "--split",
        "--against",
        "--resume",
        "--limit",
        "--time-budget",
        "--bits",
    ):
        assert flag in told


def test_run_of_a_codec_lacks_a_file_or_key(capfd, codec, data, tmp_path):
    run = tmp_path / "run"
    code, values, err = call(
        capfd, "--codec", codec, "--data", data, "--out", run, "--resolution", 32, "--limit", 1, *FAST
    )
    assert code == 0 and set(values) == KEYS, values
    assert values["shapes"] == {"done": 1, "missing": 0, "fresh": 1, "ok": 1, "failed": 0, "killed": 0, "timeout": 0}
    assert values["settings"]["codec"] == "small" and values["settings"]["resolution"] == 32
    assert set(values["files"]) == {"rows", "csv", "aggregate", "summary", "report"}
    assert all(Path(path).is_file() for path in values["files"].values())
    assert "1/1" in err and "ok" in err
    score = values["metrics"]["exact-v1.exact.accuracy_voxels.mean"]
    assert score["oracle"] < 0.3 and score["floor"] == 0.0 and score["mean"] > 0
    assert score["n"] == 1 and score["low"] is None  # no interval of a single shape
    rows, settings = read_rows(run / "rows.parquet")
    assert settings["bits"] == 8 and {row["surface"] for row in rows} <= {"snapped", "single", "mixed"}
    for row in rows:  # one: a shape takes seconds
        assert row["bytes"] > 0 and row["tokens"] > 0 and row["codec_hash"] and row["peak_memory_bytes"] > 50e6
        shapes = run / "shapes" / row["name"]
        for name in ("original.png", "reconstruction.png", "error.png"):
            with Image.open(shapes / name) as picture:
                assert picture.size == (640, 560) and len(picture.getcolors(1 << 20)) > 10
        for name in ("original.bin", "reconstruction.bin"):
            assert (shapes / name).stat().st_size <= 200_000
        shown = read_view_mesh(shapes / "reconstruction.bin")
        assert shown.unit == "voxels" and shown.errors is not None and float(shown.errors.max()) > 0
    code, values, _ = call(
        capfd, "--codec", codec, "--data", data, "--out", run, "--resolution", 32, "--limit", 1, "--resume", *FAST
    )
    assert code == 0 and values["shapes"]["fresh"] == 0


def test_two_tables_of_meshes_cannot_be_compared(capfd, data, tmp_path):
    for label, shift in (("near", 0.001), ("far", 0.02)):
        (tmp_path / label).mkdir()
        for name in "ab":
            mesh = read_mesh(data / f"{name}.ply")
            write_mesh(Mesh(mesh.vertices + shift, mesh.faces), tmp_path / label / f"{name}.drc")
    common = ("--data", data, "--no-pictures", "--resolution", 100, *FAST)
    code, far, _ = call(capfd, "--meshes", tmp_path / "far", "--out", tmp_path / "r1", *common)
    assert code == 0 and far["settings"]["codec"] == "far" and far["against"] is None
    assert far["metrics"]["exact-v1.exact.accuracy_voxels.mean"]["oracle"] is None
    code, near, _ = call(
        capfd, "--meshes", tmp_path / "near", "--label", "closer", "--out", tmp_path / "r2",
        "--against", tmp_path / "r1" / "rows.parquet", *common,
    )  # fmt: skip
    assert code == 0 and near["settings"]["codec"] == "closer"
    paired = near["against"]
    score = paired["columns"]["exact-v1.exact.accuracy_voxels.mean"]
    assert paired["other"]["codec"] == "far" and score["wins"] == 2 and score["difference"] < 0
    assert json.loads((tmp_path / "r2" / "against.json").read_text()) == paired
    assert not (tmp_path / "r2" / "shapes").exists()
    assert cli.run([str(a) for a in ("evaluate", "--meshes", tmp_path / "near", "--label", "closer", "--out", tmp_path / "r2",
                                     "--resume", "--against", tmp_path / "r1" / "rows.parquet", *common)]) == 0  # fmt: skip
    printed = capfd.readouterr().out
    assert "won:lost:tied" in printed and "2:0:0" in printed and "report.html" in printed


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "one of --codec and --meshes"),
        (("--codec", "log3d-tiny", "--label", "x"), "--label and --align are of --meshes"),
        (("--codec", "nobody"), "nobody"),
        (("--codec", "log3d-tiny", "--resolution", 7), "multiple of 8"),
        (("--codec", "log3d-tiny", "--split", "test"), "no manifest"),
        (("--codec", "log3d-tiny", "--against", "missing.parquet"), "no such file"),
        (("--codec", "log3d-tiny", "--protocols", "exact-v0"), "unknown protocol"),
        (("--meshes", "."), "--surface"),
    ],
)
def test_wrong_flags_are_our_fault(capfd, data, tmp_path, flags, words):
    surface = ("--surface", "snapped") if "--meshes" in flags else ()
    protocols = () if "--protocols" in flags else ("--protocols", "exact-v1")
    code, values, err = call(
        capfd, *flags, *surface, *protocols, "--data", data, "--out", tmp_path / "run", "--workers", 0, "--points", 100
    )
    assert code == 1 and words in values["error"]["message"] and words in err
