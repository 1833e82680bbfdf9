"""What is retrained: `compact`, an encoder trained from scratch, or a pretrained `transformers` checkpoint.

`prepare` turns a dataset into a `Task`: everything a training needs, tokenised once. Texts travel packed (token ids end
to end, never padded); a network maps `Tokens` of B texts to logits (B, classes) and has `features` (B, width), a `head`
and nothing else that the training loop knows of.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from stabutils.errors import InputError


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint: a local one, an installed package's, or the hub's (downloaded once; weights only as
    safetensors)."""
    if Path(name).is_dir():
        return Path(name)
    if folder := packaged(name):
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(
            "model",
            name,
            '"compact", a folder, an installed package, or a hub id such as "owner/name"',
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                name, allow_patterns=["*.json", "*.txt", "*.model", "model*.safetensors"]
            )
        )
    except Exception as error:
        raise InputError(
            "model",
            name,
            f'"compact", a folder, or a hub id that can be downloaded ({type(error).__name__})',
        ) from error


def packaged(name: str) -> Path | None:
    """The folder `model` of an installed package, where it holds a checkpoint; the package is not run."""
    spec = (
        importlib.util.find_spec(name.replace("-", "_"))
        if re.fullmatch(r"[A-Za-z][\w-]*", name)
        else None
    )
    folders = (
        [Path(place) / "model" for place in spec.submodule_search_locations or ()] if spec else []
    )
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def pooling_of(folder: Path) -> str:
    """How the checkpoint itself makes one vector of a text: its own note, else last token (causal) or first."""
    note = folder / "1_Pooling" / "config.json"
    if note.is_file():
        return (
            "mean"
            if json.loads(note.read_text(encoding="utf-8")).get("pooling_mode_mean_tokens")
            else "first"
        )
    from transformers.models.auto import modeling_auto

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    reads_ahead = (
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )  # encoders; some of them can also be made causal
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in reads_ahead
    return "last" if causal else "first"


DECISIVE = re.compile(
    r"(config|tokenizer.*|vocab.*|merges.*|special_tokens.*|added_tokens.*)\.(json|txt)$"
    r"|.*\.(safetensors|model)$"
)


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over what decides a checkpoint's answers: configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if DECISIVE.match(file.name):
            digest.update(f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
