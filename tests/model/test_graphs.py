"""CUDA graphs of a network's passes: the same embeddings, gradients and statistics as without."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from labelmerge.errors import ConfigError
from labelmerge.model.build import build_model
from labelmerge.model.graphs import GraphedForward
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.processes import refuse_graphs


@pytest.mark.parametrize(
    ("changed", "world", "device", "why"),
    [
        ({}, 1, "cpu", "there are none on cpu"),
        ({}, 2, "cuda", "for one process, not 2"),
        ({"accumulate": 2}, 1, "cuda", "each of 2 pieces would overwrite"),
        ({"recompute": True}, 1, "cuda", "can't compute activations again"),
    ],
)
def test_what_graphs_cannot_do_is_refused(changed: dict[str, bool | int], world: int, device: str, why: str) -> None:
    config = TrainConfig().changed(cuda_graphs=True, **changed)
    with pytest.raises(ConfigError, match=f"no CUDA graphs: .*{why}"):
        refuse_graphs(config, Ranks(0, world), torch.device(device))
    refuse_graphs(config.changed(cuda_graphs=False), Ranks(0, world), torch.device(device))


def test_without_a_gpu_a_network_stays_as_it_is(tmp_path: Path) -> None:
    network = build_model("segformer-b0", 8).eval()
    images = torch.randn(1, 3, 64, 64)
    before, names = network(images), list(network.state_dict())
    GraphedForward(network)
    assert torch.equal(network(images), before) and list(network.state_dict()) == names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: graphs are not recorded")
def test_the_same_on_the_gpu() -> None:
    torch.manual_seed(0)
    plain = build_model("segformer-b0", 8).cuda().train()
    graphed = copy.deepcopy(plain)
    GraphedForward(graphed)
    for step, size in enumerate((64, 64, 96, 64)):  # the second size is run as before
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(step)).cuda()
        found: list[list[Tensor]] = []
        for network in (plain, graphed):
            network.zero_grad(set_to_none=True)
            torch.manual_seed(step)  # of drop path
            with torch.autocast("cuda", torch.bfloat16):
                out = network(images)
            (out.float() ** 2).mean().backward()
            grads = [each.grad.clone() for each in network.parameters() if each.grad is not None]
            found.append([out.detach().clone(), *grads, *(each.clone() for each in network.buffers())])
        assert len(found[0]) == len(found[1])
        for theirs, ours in zip(*found, strict=True):
            assert (ours.double() - theirs.double()).norm() <= 1e-2 * theirs.double().norm()
    with torch.autocast("cuda", torch.bfloat16):  # a second pass before the gradients of the first
        images = torch.randn(4, 3, 64, 64).cuda()
        first = graphed(images)
        kept = first.detach().clone()
        graphed(images * 2)
    assert torch.equal(first, kept)
