"""Codec and generator folders: config.json, model.safetensors (in shards when large), README.md. Pickle is never read or written.

config.json holds {"format", "version", "kind", "name", "config": the codec's settings, "codec_hash"}. Shards follow the
names and the index of the Hugging Face hub. Shapes in the files' headers are compared with a model that has no storage
before anything of the weights' size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from shapecodec.errors import BadArgument, BadFile, UserError

VERSION = 1
FORMATS = {"codec": "shapecodec-codec", "generator": "shapecodec-generator"}  # what the folder is called in messages
CONFIG, WEIGHTS, INDEX, CARD = "config.json", "model.safetensors", "model.safetensors.index.json", "README.md"
SHARD_BYTES = 16 << 20  # hosts of git repositories complain above 50 MB, and 16 MiB pieces download in parallel
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_TAGS = {"codec": "autoencoder", "generator": "diffusion"}
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_FLOATS = {"F32", "F16", "BF16"}
_MAX_JSON = 16 << 20


def codec_hash(weights: dict[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def save_codec_folder(
    module: nn.Module,
    folder: str | Path,
    *,
    kind: str,
    config: dict[str, Any],
    what: str = "codec",
    name: str = "",
    dtype: str = "float32",
    card: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Write a codec folder (or what else `what` says), whole or not at all; returns the hash of the stored weights.

    Args:
        module: its state dict is written; floating-point tensors in `dtype`.
        folder: new, empty, or a codec folder, which is then replaced.
        kind: the codec's class, by its name in the registry.
        config: its settings as JSON values.
        what: a key of `FORMATS`.
        name: for people and messages, e.g. log3d-base.
        dtype: float32, or float16 or bfloat16 to halve the size; loading gives float32 again.
        card: README.md in Markdown; None keeps the one of a folder that is replaced, or writes a short one.
        shard_bytes: weights above this size are split into files of at most this size (a single tensor is never split).

    Raises:
        BadArgument: unknown dtype, or weights that are NaN or infinite in it.
        BadFile: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    if dtype not in _TYPES:
        raise BadArgument(f"unknown dtype '{dtype}'.", where="save", hint=f"one of {', '.join(_TYPES)}.")
    _check_target(folder, what)
    weights = {
        key: (value.to(_TYPES[dtype]) if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in module.state_dict().items()
    }
    for key, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadArgument(f"the weight '{key}' is NaN or infinite as {dtype}.", where="save", hint="use float32.")
    digest = codec_hash(weights)
    header = {"format": FORMATS[what], "version": VERSION, "kind": kind, "name": name, "config": config}
    header["codec_hash"] = digest
    if card is None and (folder / CARD).is_file():
        card = (folder / CARD).read_text()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.staged-"))
        try:
            _write_weights(weights, staged, shard_bytes)
            (staged / CARD).write_text(card or _short_card(header, weights, what))
            (staged / CONFIG).write_text(json.dumps(header, indent=2) + "\n")
            staged.chmod(0o755)
            _swap(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise BadFile(f"cannot be written ({error.strerror or error}).", where=str(folder)) from error
    return digest


def _check_target(folder: Path, what: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadFile(f"is a file; a {what} is saved as a folder.", where=str(folder), hint="give another name.")
    if any(folder.iterdir()) and not is_codec_folder(folder, what):
        raise BadFile(f"the folder holds something else than a {what}.", where=str(folder), hint="give a new folder.")


def _swap(staged: Path, folder: Path) -> None:
    """Put `staged` in the place of `folder`; the old one is deleted last."""
    if not folder.exists():
        staged.replace(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-"))
    folder.replace(old)
    staged.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_weights(weights: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    shards, room = [dict[str, Tensor]()], shard_bytes
    for key, value in weights.items():
        if value.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][key] = value
        room -= value.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, {"format": "pt"})
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        places.update(dict.fromkeys(shard, file))
    total = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _short_card(header: dict[str, Any], weights: dict[str, Tensor], what: str) -> str:
    settings = "\n".join(f"| {key} | {value} |" for key, value in header["config"].items())
    return (
        f"---\nlibrary_name: shapecodec\ntags: [3d, mesh, {_TAGS[what]}]\n---\n\n# {header['name'] or header['kind']}\n\n"
        f"A shapecodec {what} of kind `{header['kind']}` with {sum(w.numel() for w in weights.values()):,} numbers, "
        f"hash `{header['codec_hash']}`. Load it with `shapecodec.load_{what}(<this folder>)`.\n\n"
        f"| setting | value |\n|---|---|\n{settings}\n"
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object from a small JSON file.

    Raises:
        BadFile: missing, over 16 MiB, not JSON, or not an object.
    """
    if not path.is_file():
        raise BadFile("no such file.", where=str(path))
    if path.stat().st_size > _MAX_JSON:
        raise BadFile(f"over {_MAX_JSON >> 20} MiB of JSON is no configuration.", where=str(path))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"not valid JSON ({error}).", where=str(path), hint="fetch the folder again.") from error
    if not isinstance(values, dict):
        raise BadFile("not a JSON object.", where=str(path))
    return values


def is_codec_folder(folder: Path, what: str = "codec") -> bool:
    """Whether config.json says that this is a codec folder, or a folder of what else `FORMATS` lists."""
    try:
        return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("format") == FORMATS[what]
    except BadFile:
        return False


def read_header(folder: Path, what: str = "codec") -> dict[str, Any]:
    """config.json of a codec or generator folder, its format and version checked."""
    path = folder / CONFIG
    header = read_json(path)
    if header.get("format") != FORMATS[what]:
        hint = f"give a folder that {what.capitalize()}.save wrote."
        raise BadFile(f"not the configuration of a {what}.", where=str(path), hint=hint)
    if header.get("version") != VERSION:
        problem = f"{what} format version {header.get('version')!r}; this version of shapecodec reads {VERSION}."
        raise BadFile(problem, where=str(path), hint="upgrade shapecodec.")
    return header


def load_weights(folder: Path, build: Callable[[], nn.Module], expected_hash: str) -> nn.Module:
    """A module with the folder's weights, on the CPU in the types of `build`.

    Args:
        folder: a codec folder.
        build: makes the module. It runs once without storage, so that a configuration that asks for more than the files
            hold is refused, and then for real.
        expected_hash: of the stored weights; "" skips the check.

    Raises:
        BadFile: no weights, damaged or missing shards, other names or shapes than the configuration asks for, or a hash
            that does not fit.
    """
    places = _find_shards(folder)
    shapes = _read_shapes(folder, places)
    empty = _build_without_storage(build, len(shapes), folder)
    _compare(empty.state_dict(), shapes, folder)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten: leave the caller's numbers alone
        module = build()
    weights = {}
    try:
        for file in sorted(set(places.values())):
            with safe_open(str(folder / file), framework="pt") as shard:
                weights.update({key: shard.get_tensor(key) for key in shard.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise BadFile(
            f"the weights are damaged ({error}).", where=str(folder), hint="fetch the folder again."
        ) from error
    found = codec_hash(weights)
    if expected_hash and found != expected_hash:
        what = f"the weights do not fit config.json: hash {found}, not {expected_hash}."
        raise BadFile(what, where=str(folder), hint="fetch the folder again.")
    module.load_state_dict(weights)
    return module


def _find_shards(folder: Path) -> dict[str, str]:
    """File of each tensor; "" as the only key where one file holds all."""
    if (folder / WEIGHTS).is_file():
        return {"": WEIGHTS}
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise BadFile("the index has no weight_map.", where=str(folder / INDEX), hint="fetch the folder again.")
        for file in set(map(str, places.values())):
            if not _SHARD.fullmatch(file):  # a path in here could point anywhere
                raise BadFile(f"'{file[:80]}' is no name of a shard.", where=str(folder / INDEX))
            if not (folder / file).is_file():
                raise BadFile("this shard is missing.", where=str(folder / file), hint="fetch the folder again.")
        return {str(key): str(file) for key, file in places.items()}
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise BadFile(f"only {pickles[0]}: {PICKLE_REASON}", where=str(folder), hint=PICKLE_HINT)
    raise BadFile("the folder has no model.safetensors.", where=str(folder), hint="fetch the folder again.")


PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin"}
PICKLE_REASON = "a pickle can run any code when it is opened, so it is never read."
PICKLE_HINT = "convert it to safetensors where you trust it, or train and Codec.save()."


def _read_shapes(folder: Path, places: dict[str, str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every stored tensor, from the headers alone."""
    shapes = dict[str, tuple[str, tuple[int, ...]]]()
    for file in sorted(set(places.values())):
        try:
            with safe_open(str(folder / file), framework="pt") as shard:
                for key in shard.keys():  # noqa: SIM118
                    if key in shapes or places.get(key, file) != file:
                        raise BadFile(f"the tensor '{key}' is stored twice.", where=str(folder / file))
                    view = shard.get_slice(key)
                    shapes[key] = (view.get_dtype(), tuple(view.get_shape()))
        except (SafetensorError, OSError) as error:
            what = f"not a safetensors file, or truncated ({error})."
            raise BadFile(what, where=str(folder / file), hint="fetch the folder again.") from error
    return shapes


def _build_without_storage(build: Callable[[], nn.Module], stored: int, folder: Path) -> nn.Module:
    """The module on the meta device; stops when it has far more parameters than the files hold."""
    thread, count, limit = threading.get_ident(), 0, 4 * stored + 1000

    def stop(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit and threading.get_ident() == thread:
            raise _Larger

    hook = register_module_parameter_registration_hook(stop)
    try:
        with torch.device("meta"):
            return build()
    except _Larger as error:
        what = f"the configuration asks for over {limit:,} parameters, the files hold {stored:,} tensors."
        raise BadFile(what, where=str(folder), hint="fetch the folder again.") from error
    except UserError as error:
        raise BadFile(f"the configuration is refused: {error.what}", where=str(folder), hint=error.hint) from error
    except (RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError, MemoryError) as error:
        what = f"no model can be built from the configuration ({type(error).__name__}: {error})."[:300]
        raise BadFile(what, where=str(folder), hint="fetch the folder again.") from error
    finally:
        hook.remove()


class _Larger(Exception):
    """Raised in the middle of building a model that the files cannot fill."""


def _compare(model: dict[str, Tensor], stored: dict[str, tuple[str, tuple[int, ...]]], folder: Path) -> None:
    missing, extra = sorted(set(model) - set(stored)), sorted(set(stored) - set(model))
    if missing or extra:
        what = f"the weights do not fit the configuration: missing {missing[:3]}, unknown {extra[:3]}."
        raise BadFile(what, where=str(folder), hint="fetch the folder again.")
    for key, tensor in model.items():
        kind, shape = stored[key]
        if shape != tuple(tensor.shape):
            what = f"'{key}' has shape {list(shape)}, the configuration asks for {list(tensor.shape)}."
            raise BadFile(what, where=str(folder), hint="fetch the folder again.")
        if (kind in _FLOATS) != tensor.is_floating_point():
            raise BadFile(f"'{key}' is stored as {kind}, which is no {tensor.dtype}.", where=str(folder))
