"""Where a codec or generator lies: a bundled name, a folder, a run, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from shapecodec.errors import BadFile
from shapecodec.io.codec_folder import CONFIG, FORMATS, PICKLE_HINT, PICKLE_REASON, PICKLES, is_codec_folder

# Small codecs are package data; larger ones lie in a checkout's `weights`, beside `src`.
_BUNDLED = Path(__file__).resolve().parents[1] / "weights"
_CHECKOUT = Path(__file__).resolve().parents[3] / "weights"
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "*.md"]


def bundled_names(what: str = "codec") -> list[str]:
    """Codecs (or generators) that came with the package, or with the checkout that it is installed from."""
    folders = [path.parent for root in (_BUNDLED, _CHECKOUT) for path in root.glob(f"*/{CONFIG}")]
    return sorted({folder.name for folder in folders if is_codec_folder(folder, what)})


def locate(name_or_path: str | Path, what: str = "codec") -> Path:
    """The codec (or generator) folder behind a bundled name, a path, or a hub id `org/name[@revision]`, in this order.

    Hub files are fetched through huggingface_hub and cached by it; only JSON, safetensors and Markdown are asked for.

    Raises:
        BadFile: nothing of that name, a pickle, or a hub that cannot be reached; the message lists the bundled names.
    """
    text = str(name_or_path)
    if text in bundled_names(what):
        return _BUNDLED / text if is_codec_folder(_BUNDLED / text, what) else _CHECKOUT / text
    path = Path(name_or_path)
    if path.exists() or path.suffix.lower() in PICKLES:
        return find_weights(path, what)
    hub = _HUB_ID.fullmatch(text)
    if hub is None or isinstance(name_or_path, Path):
        raise BadFile(f"no {what} of that name, and no such folder.", where=text, hint=_names(what))
    return _download(hub["repo"], hub["revision"], what)


def find_weights(path: Path, what: str = "codec") -> Path:
    """The codec (or generator) folder at `path`: itself, that of its name in a training run, or the folder of a file in it.

    Raises:
        BadFile: a pickle, or nothing of the kind.
    """
    if path.suffix.lower() in PICKLES and not path.is_dir():
        raise BadFile(PICKLE_REASON, where=str(path), hint=PICKLE_HINT)
    if path.is_file():
        if path.suffix != ".safetensors" and path.name != CONFIG:
            raise BadFile(f"is a file, not a {what} folder.", where=str(path), hint=_names(what))
        path = path.parent
    for folder in (path, path / what):
        if is_codec_folder(folder, what):
            return folder
    for other in FORMATS.keys() - {what}:
        if any(is_codec_folder(folder, other) for folder in (path, path / other)):
            raise BadFile(f"holds a {other}, not a {what}.", where=str(path), hint=_names(what))
    if (path / "checkpoints").is_dir():
        raise BadFile(f"the run has not exported a {what} yet.", where=str(path), hint="let it run to its end.")
    hint = f"give a folder that {what.capitalize()}.save wrote."
    raise BadFile(f"the folder holds no {what}.", where=str(path), hint=hint)


def _names(what: str) -> str:
    names = bundled_names(what)
    return f"one of {', '.join(names)}, a {what} folder, or org/name of the hub." if names else f"a {what} folder."


def _download(repo: str, revision: str | None, what: str) -> Path:
    from huggingface_hub import snapshot_download  # half a second that bundled codecs do without
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES)
    except (OSError, HfHubHTTPError, HFValidationError) as error:  # offline, unknown, private or misspelt
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise BadFile(f"cannot be fetched from the hub ({reason}).", where=repo, hint=_names(what)) from error
    return find_weights(Path(folder), what)
