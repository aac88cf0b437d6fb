"""Where a codec lies: a bundled name, a folder, a run, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from shapecodec.errors import BadFile
from shapecodec.io.codec_folder import CONFIG, PICKLE_HINT, PICKLE_REASON, PICKLES, is_codec_folder

# Small codecs are package data; larger ones lie in a checkout's `weights`, beside `src`.
_BUNDLED = Path(__file__).resolve().parents[1] / "weights"
_CHECKOUT = Path(__file__).resolve().parents[3] / "weights"
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "*.md"]


def bundled_names() -> list[str]:
    """Codecs that came with the package, or with the checkout that it is installed from."""
    return sorted({path.parent.name for root in (_BUNDLED, _CHECKOUT) for path in root.glob(f"*/{CONFIG}")})


def locate(name_or_path: str | Path) -> Path:
    """The codec folder behind a bundled name, a path, or a hub id `org/name[@revision]`, in this order.

    Hub files are fetched through huggingface_hub and cached by it; only JSON, safetensors and Markdown are asked for.

    Raises:
        BadFile: nothing of that name, a pickle, or a hub that cannot be reached; the message lists the bundled names.
    """
    text = str(name_or_path)
    if text in bundled_names():
        return _BUNDLED / text if is_codec_folder(_BUNDLED / text) else _CHECKOUT / text
    path = Path(name_or_path)
    if path.exists() or path.suffix.lower() in PICKLES:
        return find_weights(path)
    hub = _HUB_ID.fullmatch(text)
    if hub is None or isinstance(name_or_path, Path):
        raise BadFile("no codec of that name, and no such folder.", where=text, hint=_names())
    return _download(hub["repo"], hub["revision"])


def find_weights(path: Path) -> Path:
    """The codec folder at `path`: itself, the `codec` folder of a training run, or the folder of a file in it.

    Raises:
        BadFile: a pickle, or nothing of the kind.
    """
    if path.suffix.lower() in PICKLES and not path.is_dir():
        raise BadFile(PICKLE_REASON, where=str(path), hint=PICKLE_HINT)
    if path.is_file():
        if path.suffix != ".safetensors" and path.name != CONFIG:
            raise BadFile("is a file, not a codec folder.", where=str(path), hint=_names())
        path = path.parent
    for folder in (path, path / "codec"):
        if is_codec_folder(folder):
            return folder
    if (path / "checkpoints").is_dir():
        raise BadFile("the run has not exported a codec yet.", where=str(path), hint="let it run to its end.")
    raise BadFile("the folder holds no codec.", where=str(path), hint="give a folder that Codec.save wrote.")


def _names() -> str:
    names = bundled_names()
    return f"one of {', '.join(names)}, a codec folder, or org/name of the hub." if names else "a codec folder."


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # half a second that bundled codecs do without
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES)
    except (OSError, HfHubHTTPError, HFValidationError) as error:  # offline, unknown, private or misspelt
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        what = f"cannot be fetched from the hub ({reason})."
        raise BadFile(what, where=repo, hint=_names()) from error
    return find_weights(Path(folder))
