"""What a step reads back from the device: at each read the GPU idles until the processor has launched what comes next.

On a CPU nothing waits, so reads are found by what they are of: tensors that came from the batch on the device or from
the weights, and all that was computed from them.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import labelmerge
from labelmerge import device
from labelmerge.loading import augment
from labelmerge.loading.mixture import Mixture
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..loading.toy_shards import toy_bank
from ..methods.test_gpu import METHODS, TOYS

# Operators whose result, or whose result's size, the processor must know, and methods that copy to it.
READING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
COPYING = ("cpu", "tolist", "numpy")
SOURCES = Path(labelmerge.__file__).parent


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """Counts reads of device tensors by the function of ours that they are in, while `step` is 1."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.step = 0
        self.found: collections.Counter[str] = collections.Counter()
        self._there: dict[int, StorageWeakRef] = {}  # a reference keeps its address from being used again

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._there[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def knows(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._there

    def noting(self, own: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        """A method of tensors that copies them to the processor, which is noted."""

        def read(tensor: Tensor) -> Any:
            if not self.knows(tensor):
                return own(tensor)
            self.note()
            with _disable_current_modes():  # a copy of which nothing is on the device
                return own(tensor.detach().clone())

        return read

    def note(self) -> None:
        if self.step == 1:
            frame: Any = sys._getframe(1)
            while frame is not None and SOURCES not in Path(frame.f_code.co_filename).parents:
                frame = frame.f_back
            place = Path(frame.f_code.co_filename).relative_to(SOURCES).as_posix() if frame is not None else "torch"
            self.found[f"{place}:{frame.f_code.co_name if frame is not None else ''}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(map(self.knows, tensors)):
            name = func._schema.name.removeprefix("aten::")
            if name in READING or (name in ("index", "index_put", "index_put_") and any(map(self._chosen, args[1]))):
                self.note()
            if name != "_local_scalar_dense":
                for each in tree_leaves(out):
                    if isinstance(each, Tensor):
                        self.add(each)
        return out

    def _chosen(self, index: Tensor | None) -> bool:
        return index is not None and index.dtype == torch.bool and self.knows(index)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    mode = Reads()
    for name in COPYING:
        monkeypatch.setattr(Tensor, name, mode.noting(getattr(Tensor, name)))

    def at_once(tensor: Tensor, where: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        copy = tensor.clone() if dtype is None else tensor.to(dtype, copy=True)
        mode.add(copy)
        return copy

    for module in list(sys.modules.values()):
        # `augment` is the loader's here: it works on the CPU before anything is moved.
        if getattr(module, "at_once", None) is device.at_once and module not in (device, augment):
            monkeypatch.setattr(module, "at_once", at_once)
    own_to = nn.Module.to

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        moved = own_to(module, *args, **kwargs)
        for tensor in (*moved.parameters(), *moved.buffers()):
            mode.add(tensor)
        return moved

    monkeypatch.setattr(nn.Module, "to", to)
    batches = Mixture.batches

    def counted(mixture: Mixture, start: int, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for mode.step, made in enumerate(batches(mixture, start, *args, **kwargs), start):
            yield made

    monkeypatch.setattr(Mixture, "batches", counted)
    return mode


CHUNKED = "losses/chunked.py:_positives"  # reads on a CPU alone: on a GPU it takes the table's whole width
NOTHING: dict[str, int] = {}
MATCHED = {"methods/lmseg/targets.py:targets_of": 1, "methods/lmseg/losses.py:match_all": 1}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "ssiw": ("ssiw", {}, NOTHING),
    "ssiw, consistency": ("ssiw", {"unlabelled": "consistency"}, NOTHING),
    "lmseg": ("lmseg", {}, MATCHED),
    "usss": ("usss", {}, NOTHING),
    "mdp": ("mdp", {}, NOTHING),
    "depth": ("depth", {"gradient_weight": 0.5, "depth_trim": 0.2}, NOTHING),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_nothing_but_what_is_matched(case: str, reads: Reads, tmp_path: Path, one_thread: None) -> None:
    method, more, expected = CASES[case]
    names, settings = METHODS[method]
    toys = [TOYS[name] for name in names]
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    common = {"steps": 3, "batch_size": 4, "crop": 32, "warmup": 0, "log_every": 10}
    config = TrainConfig.from_dict({"method": method, **common, **settings, **more})
    with reads:
        train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=config, device="cpu")
    reads.found.pop(CHUNKED, None)
    assert reads.found == expected


def test_reads_are_found(reads: Reads) -> None:
    there = torch.arange(4.0)
    reads.add(there)
    reads.step = 1
    with reads:
        more = there * 2
        assert float(more[1]) == 2 and more.tolist()[1] == 2 and len(more[more > 2]) == 2 and len(more.nonzero()) == 3
        torch.arange(4.0).tolist()
        more.cpu().tolist()
    assert reads.found.total() == 5
