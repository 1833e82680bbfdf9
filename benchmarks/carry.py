"""A checkpoint to take along: 16-bit weights, and the vocabulary that some texts need.

A tokenizer of word pieces takes the longest piece that it knows, so what it makes of these texts
stays as it is when the pieces that they do not use are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from stabutils.training.checkpoints import find_checkpoint

BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "1_Pooling/config.json")


def carry(name: str, texts: Iterable[str], folder: Path) -> Path:
    """Write the checkpoint `name` (folder, package or hub id) into a folder, for these texts."""
    from transformers import AutoTokenizer

    source = find_checkpoint(name)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    used = {token for ids in tokenizer(list(texts))["input_ids"] for token in ids}
    special = range(max(tokenizer.all_special_ids) + 1)  # these keep their ids
    kept = sorted({*special, *used})
    folder.mkdir(parents=True, exist_ok=True)
    for file in BESIDE:
        if (source / file).is_file():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(source / file, folder / file)
    write_tokenizer(source, folder, kept)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    vocabulary = config["vocab_size"]
    write_json(folder / "config.json", config | {"vocab_size": len(kept)})
    weights = {}
    for key, tensor in load_file(source / "model.safetensors").items():
        if tensor.shape[:1] == (vocabulary,):
            tensor = tensor[kept]
        half = np.issubdtype(tensor.dtype, np.floating)
        weights[key] = tensor.astype(np.float16) if half else tensor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_tokenizer(source: Path, folder: Path, kept: list[int]) -> None:
    content = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    numbers = {old: new for new, old in enumerate(kept)}
    pieces = content["model"]["vocab"].items()
    content["model"]["vocab"] = {piece: numbers[i] for piece, i in pieces if i in numbers}
    write_json(folder / "tokenizer.json", content)
    if (source / "vocab.txt").is_file():
        lines = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
        text = "\n".join(lines[i] for i in kept) + "\n"
        (folder / "vocab.txt").write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
