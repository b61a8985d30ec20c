from __future__ import annotations

import pytest
import torch

from labelmerge.device import choose_device
from labelmerge.errors import UsageError


def test_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("gpus", "default"), [(0, "cpu"), (2, "cuda")])
def test_default_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, gpus: int, default: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == torch.device(default)
    if gpus:
        assert choose_device("cuda") == torch.device("cuda")
        assert choose_device("cuda:1") == torch.device("cuda:1")
    for name in ("gpu", "cuda:7", "meta", ""):
        with pytest.raises(UsageError, match=f"no device '{name}'. Devices here: cpu"):
            choose_device(name)
