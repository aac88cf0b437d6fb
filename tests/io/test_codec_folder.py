"""A codec comes back from its folder bit by bit; a folder that does not fit its configuration is refused early."""

import json
from dataclasses import asdict, dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shapecodec.codecs import load_codec
from shapecodec.codecs.base import Codec
from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.codecs.registry import KINDS
from shapecodec.errors import BadArgument, BadFile, BadLatents
from shapecodec.io import codec_locate
from shapecodec.io.codec_folder import codec_hash, load_weights, read_header, save_codec_folder
from shapecodec.io.codec_locate import bundled_names, find_weights, locate
from shapecodec.io.config_json import config_from_json
from shapecodec.latents import Latents, Level

TINY = Log3DConfig(resolution=64, width=4, depth=1, heads=1, window=2, latent=4, chunk=64)


def tiny(seed: int = 0) -> Log3D:
    torch.manual_seed(seed)
    return Log3D(TINY)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_round_trip(tmp_path):
    codec = tiny()
    digest = codec.save(tmp_path / "codec", name="log3d-test")
    assert sorted(path.name for path in (tmp_path / "codec").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]
    before = torch.random.get_rng_state()
    found = load_codec(tmp_path / "codec")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(found, Log3D)
    assert same(found, codec)
    assert not found.training
    assert (found.config, found.name, found.codec_hash) == (TINY, "log3d-test", digest)
    assert digest == codec.codec_hash == codec_hash(found.state_dict())
    assert tiny(1).save(tmp_path / "other") != digest
    assert isinstance(Log3D.load(str(tmp_path / "codec")), Log3D)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_size(tmp_path, dtype):
    codec = tiny()
    digest = codec.save(tmp_path / "half", dtype=dtype)
    assert codec.codec_hash == ""  # the codec in memory is not the one in the file
    found = load_codec(tmp_path / "half")
    assert found.codec_hash == digest
    for one, other in zip(found.state_dict().values(), codec.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other.to(getattr(torch, dtype)).to(other.dtype))
    with pytest.raises(BadArgument, match="unknown dtype"):
        codec.save(tmp_path / "half", dtype="int4")


def test_shards(tmp_path):
    codec = tiny()
    save = lambda size: save_codec_folder(  # noqa: E731
        codec, tmp_path / "codec", kind="log3d", config=asdict(TINY), shard_bytes=size
    )
    whole, folder = save(1 << 30), tmp_path / "codec"
    assert save(8000) == whole  # the hash does not depend on the shards
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert not (folder / "model.safetensors").exists()
    assert same(load_codec(folder), codec)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(codec.state_dict())
    shards[1].unlink()
    with pytest.raises(BadFile, match="shard is missing"):
        load_codec(folder)
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadFile, match="no name of a shard"):
        load_codec(folder)


def test_replacing_keeps_the_card_and_foreign_folders(tmp_path):
    folder = tmp_path / "codec"
    tiny().save(folder, card="# My codec\n")
    tiny(1).save(folder)
    assert (folder / "README.md").read_text() == "# My codec\n"
    assert same(load_codec(folder), tiny(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(BadFile, match="something else than a codec"):
        tiny().save(tmp_path / "mine")
    with pytest.raises(BadFile, match="is a file"):
        tiny().save(tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"


def test_weights_that_do_not_fit_the_type(tmp_path):
    codec = tiny()
    with torch.no_grad():
        codec.lift.bias[0] = 1e6
    with pytest.raises(BadArgument, match=r"'lift\.bias' is NaN or infinite as float16"):
        codec.save(tmp_path / "codec", dtype="float16")
    assert not list(tmp_path.iterdir())


def edit(folder, **settings):
    header = json.loads((folder / "config.json").read_text())
    header["config"] |= settings
    (folder / "config.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": 1}, r"unknown settings \['colour'\]"),
        ({"width": 8}, "has shape"),
        ({"depth": 2}, "missing"),
        ({"depth": 0}, "unknown"),
        ({"width": 1 << 18}, "has shape|no model can be built"),
        ({"width": 10**12}, "no valid int"),
        ({"depth": 1 << 20}, "over .* parameters"),
        ({"width": "2"}, "no valid int"),
        ({"checkpoint": 1}, "no valid bool"),
        ({"truncation": "inf"}, "no valid float"),
        ({"resolution": 65}, "not a multiple of 8"),
    ],
)
def test_configurations_that_do_not_fit_the_weights(tmp_path, settings, message):
    tiny().save(tmp_path / "codec")
    edit(tmp_path / "codec", **settings)
    with pytest.raises((BadFile, BadArgument), match=message):
        load_codec(tmp_path / "codec")


def test_damaged_weights(tmp_path):
    folder = tmp_path / "codec"
    tiny().save(folder)
    path = folder / "model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-10])
    with pytest.raises(BadFile, match="truncated"):
        load_codec(folder)
    path.write_bytes(good[:-3] + b"abc")
    with pytest.raises(BadFile, match="hash"):
        load_codec(folder)
    weights = load_file(path)
    save_file({key: value.int() for key, value in weights.items()}, path)
    with pytest.raises(BadFile, match="stored as I32"):
        load_codec(folder)
    path.unlink()
    with pytest.raises(BadFile, match=r"no model\.safetensors"):
        load_codec(folder)


def test_headers_that_are_not_ours(tmp_path):
    folder = tmp_path / "codec"
    tiny().save(folder)
    header = read_header(folder)
    for change, message in (({"version": 2}, "format version 2"), ({"kind": "os.system"}, "unknown kind")):
        (folder / "config.json").write_text(json.dumps(header | change))
        with pytest.raises(BadFile, match=message):
            load_codec(folder)
    for text in ("{", "[]", "[" * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(BadFile, match="holds no codec"):
            load_codec(folder)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pkl", ".pth", ".bin"])
def test_pickles_are_refused(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x04.")
    for where in (path, str(path), f"gone{suffix}"):
        with pytest.raises(BadFile, match="never read"):
            load_codec(where)
    tiny().save(tmp_path / "codec")
    (tmp_path / "codec" / "model.safetensors").unlink()
    path.rename(tmp_path / "codec" / path.name)
    with pytest.raises(BadFile, match="never read"):
        load_codec(tmp_path / "codec")


def test_where_a_codec_can_lie(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text('{"format": 1}')
    with pytest.raises(BadFile, match="not exported a codec yet"):
        locate(run)
    tiny().save(run / "codec")
    assert find_weights(run) == run / "codec" == locate(str(run))
    assert find_weights(run / "codec" / "model.safetensors") == run / "codec"
    with pytest.raises(BadFile, match="is a file"):
        locate(run / "codec" / "README.md")
    with pytest.raises(BadFile, match="holds no codec"):
        locate(tmp_path)
    with pytest.raises(BadFile, match="no codec of that name"):
        locate("log3d-colossal")


def test_bundled_names(tmp_path, monkeypatch):
    monkeypatch.setattr(codec_locate, "_BUNDLED", tmp_path)
    monkeypatch.setattr(codec_locate, "_CHECKOUT", tmp_path / "none")
    assert bundled_names() == []
    tiny().save(tmp_path / "log3d-test")
    assert bundled_names() == ["log3d-test"]
    assert isinstance(load_codec("log3d-test"), Log3D)
    with pytest.raises(BadFile, match="one of log3d-test"):
        load_codec("log3d-other")


def test_hub(tmp_path, monkeypatch):
    """Only harmless files are asked for, at the named revision; no connection gives the bundled names."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(codec_locate, "_BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(codec_locate, "_CHECKOUT", tmp_path / "none")
    tiny().save(tmp_path / "bundled" / "log3d-test")
    calls = []

    def snapshot(repo, **options):
        calls.append((repo, options))
        return str(tmp_path / "bundled" / "log3d-test")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert isinstance(load_codec("org/name@v1.0"), Log3D)
    load_codec("org/name")
    allowed = ["*.json", "*.safetensors", "*.md"]
    assert calls[0] == ("org/name", {"revision": "v1.0", "allow_patterns": allowed})
    assert calls[1] == ("org/name", {"revision": None, "allow_patterns": allowed})

    def offline(repo, **options):
        raise LocalEntryNotFoundError("cannot connect\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BadFile, match=r"org/name: cannot be fetched from the hub \(cannot connect\).*log3d-test"):
        load_codec("org/name")


def test_latents_of_another_codec(tmp_path):
    codec = tiny()
    codec.save(tmp_path / "codec")
    level = Level(torch.zeros(0, 4), torch.tensor([0, 0]))
    codec.check_latents(Latents((level,), 64))
    codec.check_latents(Latents((level,), 64, "log3d", codec.codec_hash))
    with pytest.raises(BadLatents, match="'lagem' codec"):
        codec.check_latents(Latents((level,), 64, "lagem"))
    with pytest.raises(BadLatents, match="weights 0123"):
        codec.check_latents(Latents((level,), 64, "log3d", "0123456789abcdef"))


def test_loading_as_another_class(tmp_path):
    class Other(Codec):
        kind = "other"

    tiny().save(tmp_path / "codec")
    with pytest.raises(BadArgument, match="is a Log3D, not a Other"):
        Other.load(tmp_path / "codec")


def test_registry_names_real_classes():
    from importlib import import_module

    for kind, (module, codec, config) in KINDS.items():
        assert getattr(import_module(module), codec).kind == kind
        assert getattr(import_module(module), config)


def test_buffers_and_whole_numbers_survive(tmp_path):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("table", torch.arange(4), persistent=False)

    module = Counter()
    digest = save_codec_folder(module, tmp_path / "a", kind="counter", config={}, dtype="float16")
    module.count += 1
    found = load_weights(tmp_path / "a", Counter, digest)
    assert int(found.count) == 7
    assert found.weight.dtype == torch.float32
    assert found.table.tolist() == [0, 1, 2, 3]


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Outer:
    needed: int
    widths: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    inner: Inner = Inner()
    name: str | None = None


def test_configurations_keep_their_types():
    outer = Outer(5, (4, 5, 6), (1, 0.5), Inner(9), "a")
    assert config_from_json(Outer, json.loads(json.dumps(asdict(outer)))) == outer
    assert config_from_json(Outer, {"needed": 1}) == Outer(1)
    for bad in ({}, {"needed": True}, {"needed": 1, "pair": [1]}, {"needed": 1, "inner": {"size": 2.5}}, []):
        with pytest.raises(BadFile):
            config_from_json(Outer, bad)
