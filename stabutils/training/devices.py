"""What computes a training: the processor, or a graphics processor."""

from __future__ import annotations

import re

import torch

from stabutils.errors import InputError


def resolve(name: str) -> str:
    """The device that a name means here: "auto" a CUDA device where there is one, else the CPU.

    Raises InputError for one that this machine does not have.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return "cuda" if "cuda" in here else "cpu"
    if name not in here:
        raise InputError("device", name, f"auto, or what this machine has: {', '.join(here)}")
    return name


def describe(device: str) -> str:
    """What a device is, for the provenance of its runs."""
    kind = torch.device(device).type
    return torch.cuda.get_device_name(device) if kind == "cuda" else kind


def refuses(error: Exception) -> bool:
    """Whether an error says that tensors are not where the network is.

    >>> refuses(RuntimeError("Expected all tensors to be on the same device, but found two"))
    True
    """
    words = r"(same|different) device|on cpu|Use Tensor.cpu\(\)|device type tensor"
    return not lacks_memory(error) and re.search(words, str(error)) is not None


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that a device has no room left.

    >>> lacks_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    True
    """
    return isinstance(error, RuntimeError) and "out of memory" in str(error)
