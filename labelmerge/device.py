"""Which device tensors live on, and what it looks like when its memory is full."""

from __future__ import annotations

import torch
from torch import Tensor

from labelmerge.errors import UsageError

_NO_MEMORY = ("allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name (``cpu``, ``cuda``, ``cuda:1``, ``mps``); by default a GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count() if cuda else 0)), *["mps"] * mps]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (str(device) not in here and f"{device}:0" not in here):
        raise UsageError(f"there is no device {name!r}", fix=f"Devices here: {', '.join(here)}")
    return device


def at_once(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A small CPU tensor on `device`. A GPU is not waited for, which it would be by a plain ``to``."""
    return tensor.to(device, dtype, non_blocking=device.type == "cuda")  # Apple's may read what is gone by then


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's own, a GPU's, or what torch reports as a plain RuntimeError.

    That is the CPU's, and a GPU's where one of its libraries asks for it.
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
