"""A network's forward and backward pass as one CUDA graph each: launched as a whole, not kernel by kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from labelmerge.model.build import SegmentationModel


class GraphedForward:
    """In place of a network's `forward`: in training, images of the first size and kind are run by a CUDA graph.

    It is recorded when the first such images come, from kernels that this run would launch anyway, so the results are
    the same. All else (other sizes, evaluation, a second pass before the first one's gradients are there, whose
    activations the graph would overwrite) is run as before.
    """

    def __init__(self, network: SegmentationModel) -> None:
        self.net: nn.Module = network.net
        self._plain: Any = self.net.forward
        self._graphed: Any = None
        self._like: tuple[Any, ...] = ()
        self._waits = False  # for the gradients of the last pass
        self.net.forward = self

    def __call__(self, images: Tensor) -> Tensor:
        trains = images.is_cuda and self.net.training and torch.is_grad_enabled()
        if not trains or self._waits or torch.cuda.is_current_stream_capturing():
            return self._run_plain(images)
        if self._graphed is None:
            self._record(images)
        if self._like != _kind(images):
            return self._run_plain(images)
        out: Tensor = self._graphed(images)
        self._waits = True
        out.register_hook(self._done)  # type: ignore[no-untyped-call]
        return out

    def _run_plain(self, images: Tensor) -> Tensor:
        out: Tensor = self._plain(images)
        return out

    def _done(self, _: Tensor) -> None:
        self._waits = False

    def _record(self, images: Tensor) -> None:
        """Runs the network a few times, which must leave the statistics of its norms as they are."""
        kind = images.device.type
        kept = [(buffer, buffer.clone()) for buffer in self.net.buffers()]
        self.net.forward = self._plain
        autocast = torch.autocast(
            kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
        )
        with autocast, torch.random.fork_rng([images.device]):
            torch.cuda.make_graphed_callables(self.net, (images.clone(),), allow_unused_input=True)
        self._graphed, self._like = self.net.forward, _kind(images)
        self.net.forward = self
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def _kind(images: Tensor) -> tuple[Any, ...]:
    return images.shape, images.dtype, images.stride(), torch.is_autocast_enabled(images.device.type)
