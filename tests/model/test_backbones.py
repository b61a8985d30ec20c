"""SegFormer's faster attention, recomputed activations and compiled regions: the same losses and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders.mix_transformer import Attention
from torch import Tensor, nn

from labelmerge.errors import ConfigError
from labelmerge.model.backbones import FastBlock, FusedAttention, SegFormer
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


@pytest.fixture(scope="module")
def literal() -> tuple[nn.Module, SegFormer]:
    """smp's SegFormer, and ours with its weights, in float64."""
    torch.manual_seed(0)
    theirs = smp.Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=256, classes=8, upsampling=1)
    ours = SegFormer(0, 8)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if "fuse_stage.1" in name and value.is_floating_point():
                value.uniform_(0.5, 2)  # a norm that has learnt
            ours.state_dict()[name.replace("segmentation_head", "head")].copy_(value)
    return theirs.double().eval(), ours.double().eval()


def test_the_decoder_in_another_order_gives_the_papers(literal: tuple[nn.Module, SegFormer]) -> None:
    theirs, ours = literal
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    wanted, found = theirs(images), ours(images)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted.sin().sum().backward()
    found.sin().sum().backward()
    gradients = {name.replace("segmentation_head", "head"): each.grad for name, each in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-7, atol=1e-9)


def test_in_bfloat16_it_is_off_by_no_more_than_the_literal_one(literal: tuple[nn.Module, SegFormer]) -> None:
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    off = []
    with torch.no_grad():
        exact = literal[0](images)
    for model in literal:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = copy.deepcopy(model).float()(images.float())
        off.append(float((found.double() - exact).norm() / exact.norm()))
    assert off[1] < 1.1 * off[0] < 0.05


@pytest.mark.parametrize("name", ["segformer-b0", "lite"])
def test_shapes_can_be_had_without_content(name: str) -> None:
    out = build_model(name, 8).to("meta").eval()(torch.empty(1, 3, 64, 96, device="meta"))
    assert out.shape == (1, 8, 16, 24)


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


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("stage", "channels", "weights"), [(1, 32, 12), (4, 256, 10)])  # with a reduction, and without
def test_a_blocks_weights_are_cast_together_to_the_same_bits(
    stage: int, channels: int, weights: int, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    casts: list[int] = []
    copy_all = torch._foreach_copy_

    def count(out: list[Tensor], given: list[Tensor]) -> None:
        casts.append(len(out))
        copy_all(out, given)

    monkeypatch.setattr(torch, "_foreach_copy_", count)
    found, block = [], segformer().get_submodule(f"net.encoder.block{stage}.0")
    images = torch.randn(1, channels, 8, 8, requires_grad=True)
    for together in (True, False):
        own = copy.deepcopy(block).train()
        assert isinstance(own, FastBlock) and own.parts[0] is own.attn.q  # not that of what was copied
        own.recomputes, own.parts = recompute, own.parts if together else ()
        casts.clear()
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(own, images))
        assert casts == ([weights] * (3 if recompute else 2) if together else [])
        assert all(part.cast is None for part in own.parts)
    (loss, grads), (wanted, others) = found
    assert torch.equal(loss, wanted) and len(grads) == len(others) > weights
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(grads, others, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at activations
def test_compiled_regions_change_nothing_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compile_with = FastBlock.compile
    monkeypatch.setattr(FastBlock, "compile", lambda self, **kwargs: compile_with(self, backend=count, **kwargs))
    torch.compiler.reset()
    same(lambda: build_model("segformer-b0", 8), SegmentationModel.compile_network, torch.randn(2, 3, 64, 32))
    assert len(graphs) == 8  # both halves of a block, for each stage; a B5's 52 blocks have no more


def test_recomputed_norms_see_every_batch_once() -> None:
    plain, changed = (build_model("timm:resnet18", 8).train() for _ in range(2))
    changed.load_state_dict(plain.state_dict())
    changed.recompute()
    for seed in range(2):
        images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
        for model in (plain, changed):
            model(images).square().mean().backward()
    for ours, theirs in zip(changed.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)
