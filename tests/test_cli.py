"""What scripts rely on: keys, exit codes, one object on stdout, and the same bytes on every way through."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shapecodec import cli
from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.data.source import SourceConfig
from shapecodec.errors import BadArgument
from shapecodec.evaluate.measure import MEASURES
from shapecodec.io.mesh_files import read_mesh, write_mesh
from shapecodec.mesh import Mesh
from shapecodec.recipes import RECIPES, Recipe
from shapecodec.train.config import RunConfig

METRICS = {
    "protocol", "digest", "points", "seed", "surface", "resolution", "voxel", "frame", "exact", "hausdorff", "sampled",
    "paper", "normal_error_degrees", "normal_error_signed_degrees", "iou", "prediction", "reference", "area_ratio",
    "volume_ratio", "standard_error",
}  # fmt: skip
RECONSTRUCT = {
    "codec", "input", "output", "resolution", "device", "seed", "warnings", "latents", "mesh", "metrics", "floor", "oracle",
    "seconds", "peak_memory_bytes",
}  # fmt: skip
SMALL = Log3DConfig(resolution=64, width=4, depth=1, heads=1, window=4, convs_per_block=1, latent=4)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec") / "small"
    Log3D(SMALL).save(folder, name="small")
    return str(folder)


@pytest.fixture
def chair(tmp_path):
    """A box of 10 x 20 x 5, far from the origin."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 10) for y in (0.0, 20) for z in (0.0, 5)]) + 1000
    faces = torch.tensor([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                          [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
    path = tmp_path / "chair.ply"
    write_mesh(Mesh(corners, faces), path)
    return path


def call(capfd, *arguments: object) -> tuple[int, dict, str]:
    """Exit code, the one object on stdout, and stderr."""
    code = cli.run([str(a) for a in (*arguments, "--json")])
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 1, out
    return code, json.loads(lines[0]), err


def process(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "shapecodec.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_reconstruct_loses_a_key(capfd, codec, chair, tmp_path):
    picture = tmp_path / "out.png"
    code, values, _ = call(
        capfd, "reconstruct", chair, "--codec", codec, "-o", tmp_path / "out.glb", "--points", 2000, "--picture", picture
    )  # fmt: skip
    assert code == 0 and set(values) == RECONSTRUCT
    assert set(values["latents"]) == {"levels", "bytes"}
    assert all(set(level) == {"tokens", "channels"} for level in values["latents"]["levels"])
    assert set(values["mesh"]) == {"vertices", "faces", "watertight", "surface"}
    assert set(values["metrics"]) == set(values["oracle"]) == METRICS
    assert set(values["floor"]) == {"chamfer_l1", "chamfer_l2", "f_score"}
    assert list(values["seconds"]) == ["load", "prepare", "encode", "decode", "extract", "metrics", "total"]
    assert (values["codec"], values["resolution"], values["device"], values["seed"]) == ("small", 64, "cpu", 0)
    assert values["peak_memory_bytes"] > 50e6
    assert values["oracle"]["exact"]["accuracy_voxels"]["mean"] < 0.3
    assert len(read_mesh(tmp_path / "out.glb").faces) <= values["mesh"]["faces"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_documented_key_is_missing_or_extra():
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    for key in sorted(METRICS | RECONSTRUCT):
        assert f"`{key}" in page, key


def test_file_gives_another_mesh_than_memory(codec, chair, tmp_path):
    straight, latents, back = tmp_path / "straight.ply", tmp_path / "chair.safetensors", tmp_path / "back.ply"
    for arguments in (
        ("reconstruct", chair, "--codec", codec, "-o", straight, "--points", 100, "--bits", 6),
        ("encode", chair, "--codec", codec, "-o", latents, "--bits", 6),
        ("decode", latents, "--codec", codec, "-o", back),
    ):
        done = process(*arguments)
        assert done.returncode == 0, done.stderr
    assert straight.read_bytes() == back.read_bytes()
    low, high = read_mesh(back).bounds()
    middle, reach = torch.tensor([1005.0, 1010, 1002.5]), 20 / 0.95 / 2 + 1e-3
    assert bool(((low - middle).abs() <= reach).all()) and bool(((high - middle).abs() <= reach).all())


def test_bits_do_not_change_the_size(capfd, codec, chair, tmp_path):
    sizes = {}
    for bits in (6, 8, 16, 32):
        path = tmp_path / f"{bits}.safetensors"
        code, values, _ = call(capfd, "encode", chair, "--codec", codec, "-o", path, "--bits", bits)
        assert code == 0
        assert set(values) == RECONSTRUCT - {"mesh", "metrics", "floor", "oracle"} | {"bits"}
        sizes[bits] = values["latents"]["bytes"]
        assert sizes[bits] == path.stat().st_size
    assert sizes[6] < sizes[8] < sizes[16] < sizes[32]


def test_decode_loses_a_key(capfd, codec, chair, tmp_path):
    latents = tmp_path / "chair.safetensors"
    call(capfd, "encode", chair, "--codec", codec, "-o", latents)
    code, values, _ = call(capfd, "decode", latents, "--codec", codec, "-o", tmp_path / "a.ply", "--surface", "shell")
    assert code == 0 and set(values) == RECONSTRUCT - {"metrics", "floor", "oracle", "warnings"}
    assert values["mesh"]["surface"] == "shell"
    code, values, _ = call(capfd, "decode", latents, "-o", tmp_path / "b.ply")
    assert code == 1 and "--codec" in values["error"]["hint"]


def test_a_mesh_is_far_from_itself(capfd, chair):
    code, values, _ = call(capfd, "compare", chair, chair, "--points", 1000, "--resolution", 100)
    assert code == 0
    assert set(values) == {"prediction", "reference", "resolution", "seed", "metrics", "floor", "protocols", "seconds"}
    assert set(values["metrics"]) == METRICS
    assert values["metrics"]["exact"]["accuracy_voxels"]["max"] < 1e-3
    assert set(values["protocols"]) == set(MEASURES)
    for name, result in values["protocols"].items():
        assert result["protocol"] == name and result["floor"]
        assert name == "normals-v1" or set(result) == METRICS | {"floor"}
    assert values["floor"] == values["protocols"]["exact-v1"]["floor"]
    assert values["metrics"]["iou"]["value"] == 1.0 and values["metrics"]["hausdorff"]["upper"] < 1e-5
    assert values["protocols"]["normals-v1"]["nmse"] < 1e-6
    assert set(values["seconds"]) == {"load", "metrics", "normal_maps", "total"}


def test_comparison_for_people(capfd, chair):
    assert cli.run(["compare", str(chair), str(chair), "--points", "1000", "--protocol", "lagem-v1"]) == 0
    text = capfd.readouterr().out
    assert "exact distance" in text and "protocol lagem-v1: 1,000 points a mesh, seed 0" in text
    assert "NMSE" not in text and "exact-v1" not in text
    code, values, _ = call(capfd, "compare", chair, chair, "--protocol", "lagem-v2")
    assert code == 1 and "lagem-v1" in values["error"]["hint"]


BAD = {
    "missing": (None, [], "no such file"),
    "empty": (b"", [], "empty"),
    "format": (b"x", [], "unknown mesh format"),
    "faces": (b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", [], "face"),
    "large": (b"OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 2 1\n", ["--max-faces", "1"], "1"),
    "bits": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", ["--bits", "7"], "bits"),
    "resolution": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", ["--resolution", "63"], "multiple of 8"),
    "codec": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", ["--codec", "nobody"], "no codec"),
    "output": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", ["-o", "out.doc"], "format of mesh"),
    "folder": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", ["-o", "nowhere/out.ply"], "folder"),
}


@pytest.mark.parametrize(("content", "flags", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_blamed_on_us_or_leaves_files(capfd, codec, tmp_path, monkeypatch, content, flags, said):
    monkeypatch.chdir(tmp_path)
    path = Path("mesh.xyz" if content == b"x" else "mesh.off")
    if content is not None:
        path.write_bytes(content)
    before = set(tmp_path.iterdir())
    code, values, err = call(capfd, "reconstruct", path, *([] if "--codec" in flags else ["--codec", codec]), *flags)
    assert code == 1 and list(values) == ["error"]
    assert said in values["error"]["message"] and values["error"]["message"] in err
    assert "Traceback" not in err and set(tmp_path.iterdir()) == before


def test_unknown_flag(capfd):
    code, values, err = call(capfd, "reconstruct", "mesh.off", "--resolutoin", "64")
    assert code == 1 and values["error"]["kind"] == "BadArgument" and "resolutoin" in err
    assert set(values["error"]) == {"kind", "message", "what", "where", "hint"}


def test_mesh_stays_when_the_picture_fails(capfd, codec, chair, tmp_path, monkeypatch):
    picture = tmp_path / "folder.png"
    picture.mkdir()
    flags = ("--codec", codec, "-o", tmp_path / "out.glb", "--points", 100, "--picture", picture)
    code, values, _ = call(capfd, "reconstruct", chair, *flags)
    assert code == 1 and values["error"]["kind"] == "BadFile" and not (tmp_path / "out.glb").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    code, values, _ = call(capfd, "reconstruct", chair, *flags[:-2])
    assert code == 1 and "cannot be written" in values["error"]["what"]


def test_work_is_done_before_points_are_refused(capfd, codec, chair, tmp_path):
    code, values, err = call(capfd, "reconstruct", chair, "--codec", codec, "-o", tmp_path / "out.glb", "--points", 0)
    assert code == 1 and values["error"]["where"] == "--points" and "prepare" not in err


def test_our_fault_is_blamed_on_the_user(capfd, monkeypatch):
    from shapecodec.commands import doctor

    monkeypatch.setattr(doctor, "free_memory", lambda device: 1 // 0)
    code, values, err = call(capfd, "doctor")
    assert code == 2 and values["error"]["kind"] == "ZeroDivisionError"
    assert "doctor" in err and "Traceback" not in err


def test_resolution_that_cannot_fit_is_tried(capfd, codec, chair, tmp_path, monkeypatch):
    from shapecodec.commands import memory

    monkeypatch.setattr(memory, "free_memory", lambda device: 2**28)
    out = tmp_path / "out.ply"
    code, values, _ = call(capfd, "reconstruct", chair, "--codec", codec, "--resolution", 2048, "-o", out)
    assert code == 1 and "GiB" in values["error"]["what"] and "--resolution" in values["error"]["hint"]
    assert not out.exists()


def test_estimated_blocks_are_far_from_true(chair):
    from shapecodec.codecs.log3d.memory import estimate_memory, estimate_tokens

    unit = read_mesh(chair).normalise()[0]
    model = Log3D(SMALL)
    for resolution in (256, 512):
        true = model.prepare(unit, resolution=resolution).tokens
        assert 0.6 < estimate_tokens(unit, resolution) / true < 1.6
    assert estimate_memory(SMALL, 40_000) > 2 * estimate_memory(SMALL, 10_000)


def test_help_waits_for_torch():
    code = "import sys, shapecodec.cli as c; c.run(['reconstruct', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--resolution" in done.stdout


def test_doctor_loses_a_key(capfd):
    code, values, _ = call(capfd, "doctor")
    assert code == 0
    assert set(values) == {
        "versions", "system", "cores", "threads", "device", "gpus", "triton", "free_memory_bytes", "kinds", "codecs",
    }  # fmt: skip
    assert cli.run(["doctor"]) == 0 and "Python" in capfd.readouterr().out


def test_output_over_the_input(capfd, codec, chair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = chair.read_bytes()
    code, values, _ = call(capfd, "reconstruct", "chair.ply", "--codec", codec, "-o", tmp_path / "chair.ply")
    assert code == 1 and "input" in values["error"]["what"] and chair.read_bytes() == before
    (tmp_path / "chair.glb").write_bytes(b"the user's")
    assert call(capfd, "encode", chair, "--codec", codec)[0] == 0
    code, values, _ = call(capfd, "decode", "chair.safetensors", "--codec", codec, "--surface", "shell")
    assert code == 0 and (tmp_path / "chair.glb").read_bytes() == b"the user's"
    assert (tmp_path / values["output"]).is_file()


def test_resolution_zero_is_not_the_default(capfd, codec, chair, tmp_path):
    output = tmp_path / "x.safetensors"
    code, values, _ = call(capfd, "encode", chair, "--codec", codec, "--resolution", 0, "-o", output)
    assert code == 1 and "resolution 0" in values["error"]["what"]


def test_run_cannot_be_resumed_or_used(capfd, chair, tmp_path, monkeypatch):
    source = SourceConfig(procedural=2, budget=40, resolutions=((32, 1.0),))
    recipe = Recipe("log3d", replace(SMALL, resolution=32), source, RunConfig(steps=3, checkpoint_every_steps=1))
    monkeypatch.setitem(RECIPES, "small", lambda: recipe)
    folder = tmp_path / "run"
    for flag, value in (("--device", "gpu"), ("--init", "log3d-tiny")):
        code, values, _ = call(capfd, "train", "small", "--run", folder, flag, value)
        assert code == 1 and values["error"]["where"] == flag and not folder.exists()
    code, values, _ = call(capfd, "train", "small", "--run", folder, "--stop-after", 1e-6, "--device", "cpu")
    assert code == 0 and values["finished"] is False
    code, values, _ = call(capfd, "train", "--resume", folder, "--steps", 9)
    assert code == 1 and "steps" in values["error"]["message"]
    code, values, _ = call(capfd, "train", "--resume", folder, "--budget", 9, "--seed", 0)
    assert code == 1 and all(name in values["error"]["message"] for name in ("budget", "seed"))
    code, values, _ = call(capfd, "train", "--resume", folder, "--device", "cpu")
    assert code == 0, values
    assert (values["finished"], values["step"]) == (True, 3)
    assert set(values) == {"run", "recipe", "step", "finished", "seed", "seconds", "codec"}
    code, _, err = call(capfd, "encode", chair, "--codec", folder, "-o", tmp_path / "x.safetensors")
    assert code == 0, err


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        ("log3d-tiny", "budget", 6),
        ("lagem-small", "shapes", 6),
        ("focusing-small", "shapes", 6),
        ("cascade-small", "shapes", (6, 3, 1)),
    ],
)
def test_budget_is_no_setting_of_the_source(capfd, tmp_path, monkeypatch, recipe, name, value):
    """Every kind of source has its own word for it."""
    plans = []

    def build(plan, **options):
        plans.append(plan)
        raise BadArgument("seen.", where="build")

    monkeypatch.setattr("shapecodec.commands.train.build", build)
    code, values, _ = call(capfd, "train", recipe, "--run", tmp_path / "run", "--budget", 6, "--device", "cpu")
    assert code == 1 and values["error"]["where"] == "build", values
    usual = RECIPES[recipe]().source
    assert plans[0].source == replace(usual, **{name: value}) != usual


def test_run_folder_that_is_a_file(capfd, chair):
    code, values, _ = call(capfd, "train", "log3d-overfit", "--run", chair, "--steps", 1, "--device", "cpu")
    assert code == 1 and values["error"]["where"] == str(chair)


def test_recipe_that_does_not_exist(capfd, tmp_path):
    code, values, _ = call(capfd, "train", "log4d", "--run", tmp_path / "run")
    assert code == 1 and all(name in values["error"]["hint"] for name in RECIPES)
    code, values, _ = call(capfd, "train")
    assert code == 1 and "--run" in values["error"]["what"]
