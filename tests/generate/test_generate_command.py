"""From a codec to a trained generator to files, as a user does it: train, resume, generate; and what has to be refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from shapecodec import cli
from shapecodec.codecs.lagem import Lagem, LagemConfig
from shapecodec.codecs.lagem.inputs import PointInputs
from shapecodec.codecs.registry import load_codec
from shapecodec.data.collection import MeshCollection, build_families
from shapecodec.data.latent_cache import LatentSourceConfig, encode_all, open_latent_source
from shapecodec.data.manifest import Entry
from shapecodec.data.shape_pools import unit_sphere
from shapecodec.errors import BadArgument, BadFile
from shapecodec.generate.cascade import CascadeConfig
from shapecodec.generate.registry import load_generator
from shapecodec.io.latent_file import load_latents
from shapecodec.io.mesh_files import read_mesh
from shapecodec.recipes import RECIPES, Recipe
from shapecodec.rng import rng
from shapecodec.train.config import RunConfig

SMALL = LagemConfig(
    tokens=(2, 4, 8), latent=(8, 6, 4), channels=32, head_channels=16, depth=1, points=64, resolution=32
)
SOURCE = LatentSourceConfig(families=("gear", "letters"), per_family=2, shapes=(4, 2, 2), views=2, surface=128)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums depend on the number of threads, which the first compiled loop on the CPU sets anew."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Random weights whose decoded fields cross their level somewhere."""
    torch.manual_seed(0)
    folder, lagem = tmp_path_factory.mktemp("codec") / "small", Lagem(SMALL)
    with torch.no_grad():
        lagem.head.out.weight.mul_(30)
        levels = [
            torch.nn.functional.layer_norm(torch.randn(1, m, z), (z,))
            for m, z in zip((2, 4, 8), (8, 6, 4), strict=True)
        ]
        memory = lagem.head.memory(lagem.decode_levels(levels))
        answers = lagem.head(lagem.embedding(2 * torch.rand(1, 4096, 3) - 1), memory)
        lagem.head.out.bias.sub_(answers.median())
    lagem.save(folder, name="small")
    return str(folder)


@pytest.fixture(scope="module")
def trained(codec, tmp_path_factory):
    """A run of a few steps, stopped and resumed."""
    recipe = Recipe(
        "lagem-cascade",
        CascadeConfig(channels=(32,) * 3, depth=(1,) * 3, head_channels=16, cross_every=1, condition_noise=0.2),
        SOURCE,
        RunConfig(steps=4, lr=1e-2, log_every=2, ema_widths=(0.1,), checkpoint_every_steps=2),
    )
    run = tmp_path_factory.mktemp("run") / "cascade"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "cascade-test", lambda: recipe)
        assert cli.run(["train", "cascade-test", "--codec", codec, "--run", str(run), "--device", "cpu"]) == 0
    return run


def call(capfd, *arguments):
    code = cli.run([str(a) for a in (*arguments, "--device", "cpu", "--json")])
    out, err = capfd.readouterr()
    return code, json.loads(out), err


def generated(capfd, trained, codec, out, *more):
    options = ("--generator", trained, "--codec", codec, "--out", out, "--steps", 2, "--resolution", 32)
    return call(capfd, "generate", *options, *more)


def test_run_is_not_a_generator(trained, codec):
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4] and set(log[0]["terms"]) == {"z3", "z2", "z1"}
    assert log[0]["tokens_per_second"] > 0
    model = load_generator(trained)
    assert model.classes == ("gear", "letters") and model.config.tokens == (2, 4, 8)
    assert model.config.codec_hash == load_codec(codec).codec_hash
    with pytest.raises(BadFile, match="holds a generator, not a codec"):
        load_codec(trained)


def test_resume_needs_the_recipe_again(trained, codec, capfd):
    code, values, _ = call(capfd, "train", "--resume", trained)
    assert code == 0 and values["step"] == 4 and values["generator"] == str(trained / "generator")


def test_same_seed_gives_other_files(capfd, trained, codec, tmp_path):
    for name in ("one", "two"):
        code, values, _ = generated(capfd, trained, codec, tmp_path / name, "-n", 3, "--category", "gear", "letters")
        assert code == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    made = [row["mesh"] for row in values["shapes"] if row["mesh"]]
    assert made and {"generation.json", "sheet.png", "000.safetensors", "002.safetensors", *made} == set(names) - {
        "001.safetensors"
    }
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert [row["category"] for row in values["shapes"]] == ["gear", "letters", "gear"]
    again = tmp_path / "again.ply"
    first = tmp_path / "one" / made[0]
    assert cli.run(["decode", str(first.with_suffix(".safetensors")), "--codec", codec, "-o", str(again)]) == 0
    assert len(read_mesh(again).faces) == len(read_mesh(first).faces)


def test_files_of_an_earlier_call_stay(capfd, trained, codec, tmp_path):
    generated(capfd, trained, codec, tmp_path / "out", "-n", 2)
    code, values, _ = generated(capfd, trained, codec, tmp_path / "out", "-n", 1, "--seed", 1, "--no-picture")
    assert code == 0 and values["seed"] == 1
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"000", "generation"}
    (tmp_path / "out" / "thesis.doc").touch()
    code, values, _ = generated(capfd, trained, codec, tmp_path / "out", "-n", 1)
    assert code == 1 and "thesis.doc" in values["error"]["what"] and (tmp_path / "out" / "generation.json").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("record", [None, "", "[]", '{"shapes": []}', '{"format": 1, "shapes": [{"mesh": "../a"}, 3]}'])
def test_model_of_the_users_own_is_wiped(capfd, trained, codec, tmp_path, record):
    out = tmp_path / "out"
    out.mkdir()
    (out / "001.glb").write_bytes(b"mine")
    if record is not None:
        (out / "generation.json").write_text(record)
    before = contents(out)
    code, values, _ = generated(capfd, trained, codec, out, "-n", 1)
    assert code == 1 and values["error"]["kind"] == "BadFile" and contents(out) == before


def test_model_added_to_an_earlier_call_is_wiped(capfd, trained, codec, tmp_path):
    out = tmp_path / "out"
    assert generated(capfd, trained, codec, out, "-n", 1, "--no-picture")[0] == 0
    for name in ("001.glb", "sheet.png"):  # names that a call writes, but this one has not
        (out / name).write_bytes(b"mine")
        before = contents(out)
        code, values, _ = generated(capfd, trained, codec, out, "-n", 2)
        assert code == 1 and name in values["error"]["what"] and contents(out) == before
        (out / name).unlink()


def test_mistake_destroys_an_earlier_call(capfd, trained, codec, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert generated(capfd, trained, codec, out, "-n", 2)[0] == 0
    before = contents(out)
    for options in (
        ("--generator", "runs/cascde"),
        ("--codec", "log3d-tiny"),
        ("--category", "dragon"),
        ("--fix-levels", 1, "--like", tmp_path / "none.safetensors"),
        ("--resolution", 33),
    ):
        code, _, _ = generated(capfd, trained, codec, out, *options)
        assert code == 1 and contents(out) == before, options

    def fails(*arguments, **options):
        raise MemoryError("sampling")

    monkeypatch.setattr("shapecodec.commands.generate.generate_latents", fails)
    assert generated(capfd, trained, codec, out)[0] == 1 and contents(out) == before


def test_shape_to_vary_is_deleted(capfd, trained, codec, tmp_path):
    out = tmp_path / "a"
    assert generated(capfd, trained, codec, out, "-n", 3, "--no-picture")[0] == 0
    before = contents(out)
    (tmp_path / "link").symlink_to(out)
    for like in (out / "002.safetensors", tmp_path / "link" / "002.safetensors"):
        code, values, _ = generated(capfd, trained, codec, out, "-n", 1, "--fix-levels", 1, "--like", like)
        assert code == 1 and "--like" in values["error"]["where"] and contents(out) == before


def test_generator_that_never_shipped_is_looked_for(capfd, tmp_path):
    code, values, _ = call(capfd, "generate", "--out", tmp_path / "out")
    assert code == 1 and "none ships yet" in values["error"]["what"] and not (tmp_path / "out").exists()
    assert "shapecodec train cascade-small" in values["error"]["hint"]


def test_kept_level_changes(capfd, trained, codec, tmp_path):
    code, values, _ = generated(capfd, trained, codec, tmp_path / "a", "-n", 3, "--fix-levels", 1, "--no-picture")
    assert code == 0 and values["fix_levels"] == 1
    made = [load_latents(tmp_path / "a" / f"00{i}.safetensors") for i in range(3)]
    assert all(torch.equal(made[0].levels[0].feats, other.levels[0].feats) for other in made[1:])
    assert not torch.equal(made[0].levels[1].feats, made[1].levels[1].feats)
    like = tmp_path / "a" / "002.safetensors"
    code, _, _ = generated(
        capfd, trained, codec, tmp_path / "b", "-n", 2, "--fix-levels", 2, "--like", like, "--no-picture"
    )
    assert code == 0
    other = load_latents(tmp_path / "b" / "001.safetensors")
    for index in range(2):
        assert torch.allclose(other.levels[index].feats, made[2].levels[index].feats, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--category", "dragon"), "knows no category 'dragon'"),
        (("--guidance", 3), "guidance follows a category"),
        (("--fix-levels", 3), "cannot be kept"),
        (("--like", "none.safetensors"), "none is kept"),
        (("--number", 0), "0 shapes"),
        (("--steps", 0), "0 steps"),
        (("--codec", "log3d-tiny"), "makes latents of the codec"),
        (("--generator", "cascade-colossal"), "no generator of that name"),
        (("--generator", "log3d-tiny"), "no generator of that name"),
    ],
)
def test_nonsense_is_served(capfd, trained, codec, tmp_path, options, said):
    code, values, _ = generated(capfd, trained, codec, tmp_path / "out", *options)
    assert code == 1 and said in values["error"]["message"] + values["error"]["what"]
    assert not (tmp_path / "out").exists()


def test_batches_depend_on_shards(codec):
    lagem = load_codec(codec)
    source = open_latent_source(SOURCE, lagem)
    whole = source.batch(3, 0, 1, "cpu")
    halves = [source.batch(3, rank, 2, "cpu") for rank in range(2)]
    for index, stage in enumerate(whole.stages):
        assert torch.equal(stage.clean, torch.cat([half.stages[index].clean for half in halves]))
        assert torch.equal(stage.labels, torch.cat([half.stages[index].labels for half in halves]))
        assert not torch.equal(halves[0].stages[index].noise, halves[1].stages[index].noise)
        assert len(stage.coarser) == index
    assert torch.equal(source.batch(3, 0, 1, "cpu").stages[2].noise, whole.stages[2].noise)
    assert not torch.equal(source.batch(4, 0, 1, "cpu").stages[2].noise, whole.stages[2].noise)
    assert whole.tokens == 4 * 2 + 2 * 4 + 2 * 8
    with pytest.raises(BadArgument, match="do not divide"):
        source.batch(0, 0, 3, "cpu")


def test_cache_holds_other_latents_than_the_codec_gives(codec):
    cache = open_latent_source(SOURCE, load_codec(codec)).cache
    assert len(cache) == 4 and cache.real == 0 and cache.classes == ("gear", "letters")
    assert [cache.classes[label] for label in cache.labels] == ["gear", "gear", "letters", "letters"]
    for level, (count, channels) in zip(cache.levels, ((2, 8), (4, 6), (8, 4)), strict=True):
        assert level.shape == (4, 2, count, channels) and level.dtype == torch.float16
        assert torch.allclose(level.float().var(-1, correction=0), torch.ones(4, 2, count), atol=0.01)
        assert not torch.allclose(level[:, 0], level[:, 1], atol=0.05)  # views differ


@torch.no_grad()
def test_cached_view_is_of_another_shape(codec):
    """With as many vectors as stored points the finest level has one for each, so a set can be compared with the codec's own."""
    lagem = Lagem(replace(SMALL, points=8)).eval()
    lagem.load_state_dict(load_codec(codec).state_dict())
    cache = open_latent_source(replace(SOURCE, surface=8, per_family=1), lagem).cache
    mesh = unit_sphere(build_families(("gear", "letters"), 1, 0).mesh(1))
    points = mesh.sample(8, rng(0, purpose="latent cache letters/0/0"))[0][None]
    wanted = lagem.encode(PointInputs(points, torch.arange(8)[None], 32)).levels[2].feats
    assert float(torch.cdist(cache.levels[2][1, 0].float(), wanted).amin(1).max()) < 0.01
    assert float(torch.cdist(cache.levels[2][0, 0].float(), wanted).amin(1).max()) > 0.05


def test_sheets_are_taken_for_solids(codec):
    lagem, gears = load_codec(codec), build_families(("gear",), 2, 0)
    square = (
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    flat = MeshCollection.from_arrays([square], [Entry("square", category="sheet")])
    with pytest.warns(RuntimeWarning, match="1 of 3 meshes have no inside and are left out: square"):
        cache = encode_all(MeshCollection.joined([flat, gears]), lagem, SOURCE, real=1)
    assert (cache.classes, cache.real, len(cache)) == (("gear",), 0, 2)
    with pytest.raises(BadArgument, match="none of 1 shapes has an inside"):
        encode_all(flat, lagem, SOURCE, real=1)
    for bad in ({"families": ("unicorn",)}, {"shapes": ()}, {"views": 0}, {"stretch": (0.0, 1.0)}, {"real": 2.0}):
        with pytest.raises(BadArgument):
            replace(SOURCE, **bad)
    with pytest.raises(BadArgument, match="neither real nor procedural"):
        open_latent_source(replace(SOURCE, per_family=0), lagem)
    with pytest.raises(BadArgument, match="reads 64 points"):
        open_latent_source(replace(SOURCE, surface=32), lagem)
