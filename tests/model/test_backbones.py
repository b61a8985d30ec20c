"""SegFormer's faster attention, recomputed activations and compiled regions: the same losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from segmentation_models_pytorch.encoders.mix_transformer import Attention
from torch import Tensor, nn

from labelmerge.errors import ConfigError
from labelmerge.model.backbones import FusedAttention
from labelmerge.model.build import SegmentationModel, build_model


@cache
def segformer() -> SegmentationModel:
    torch.manual_seed(0)
    return build_model("segformer-b0", 8)


def gradients(model: nn.Module, images: Tensor, *, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    torch.manual_seed(seed)  # drop path
    loss = model(images).square().mean()
    loss.backward()
    return loss.detach(), [each.grad.clone() for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("ratio", [1, 2])
def test_attention_in_one_kernel_is_the_literal_one(ratio: int) -> None:
    torch.manual_seed(0)
    literal = Attention(16, num_heads=2, qkv_bias=True, sr_ratio=ratio).double()
    fused = Attention(16, num_heads=2, qkv_bias=True, sr_ratio=ratio).double()
    fused.load_state_dict(literal.state_dict())
    fused.__class__ = FusedAttention
    x = torch.randn(2, 24, 16, dtype=torch.float64, requires_grad=True)
    wanted, found = literal(x, 4, 6), fused(x, 4, 6)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    ((ours,), (theirs,)) = (torch.autograd.grad(out.sin().sum(), x) for out in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


def test_every_attention_of_a_segformer_is_the_fast_one() -> None:
    kinds = {type(part) for part in segformer().modules() if isinstance(part, Attention)}
    assert kinds == {FusedAttention}


def same(make: Callable[[], SegmentationModel], change: Callable[[SegmentationModel], None], images: Tensor) -> None:
    plain, changed = make(), make()
    changed.load_state_dict(plain.state_dict())
    change(changed)
    for model in (plain, changed):
        model.train()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
    (loss, wanted), (other, found) = gradients(plain, images), gradients(changed, images)
    torch.testing.assert_close(other, loss)
    assert len(wanted) == len(found)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["segformer-b0", "timm:test_vit"])
def test_recomputed_activations_change_nothing(name: str) -> None:
    same(lambda: build_model(name, 8), SegmentationModel.recompute, torch.randn(2, 3, 64, 32))
    with pytest.raises(ConfigError, match="tiny has no blocks"):
        build_model("tiny", 8).recompute()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at activations
def test_compiled_regions_change_nothing_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compile_with = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: compile_with(self, backend=count, **kwargs))
    torch.compiler.reset()
    same(lambda: build_model("segformer-b0", 8), SegmentationModel.compile_network, torch.randn(2, 3, 64, 32))
    assert len(graphs) == 8  # attention and MLP of each stage; a B5's 52 blocks have no more
