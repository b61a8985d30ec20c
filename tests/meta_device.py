"""A stand-in for a GPU where there is none: tensors without content, which any read of them raises for."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations on tensors of the CPU and of the device together: a copy, or an index that has to be copied."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # numbers of one element go along with a launch
        tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor) and each.ndim]
        if {each.device.type for each in tensors} == {"cpu", "meta"}:
            self.found.append(str(func))
        return out


def without_content(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The same shape on the device."""
    return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device="meta")


def prepare(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let these modules work on the device; their `at_once`, a copy that is not waited for, is not noted."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # there is none for `meta`
    for module in modules:
        monkeypatch.setattr(module, "at_once", lambda tensor, device, dtype=None: without_content(tensor, dtype))
