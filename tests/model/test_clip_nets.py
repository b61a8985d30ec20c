"""CLIP's image tower as a dense encoder, beside open_clip's own forward pass; random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from labelmerge.errors import ConfigError
from labelmerge.model.build import SegmentationModel, build_model
from labelmerge.model.clip_nets import published_weights

NAME = "ViT-S-32-alt"
DIM = 256  # of its space


@cache
def whole() -> open_clip.CLIP:
    torch.manual_seed(0)
    return open_clip.create_model(NAME, load_weights=False).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    save_file(whole().state_dict(), path)
    return path


def loaded(file: Path, dim: int = DIM, name: str = NAME) -> SegmentationModel:
    return build_model(f"open_clip:{name}", dim, pretrained=str(file)).eval()


@torch.no_grad()
def test_untrained_it_is_clip_at_every_patch(file: Path) -> None:
    """At CLIP's own size, against the tokens that open_clip gives beside its pooled one."""
    model, tower = loaded(file), whole().visual
    images = torch.randn(2, 3, 224, 224)
    tower.output_tokens = True
    try:
        _, tokens = tower(images)
    finally:
        tower.output_tokens = False
    wanted = (tokens @ tower.proj).transpose(1, 2).reshape(2, DIM, 7, 7)
    _, dense = model.net.get_submodule("encoder")(images)
    torch.testing.assert_close(dense, wanted, rtol=1e-4, atol=1e-4)
    upsampled = F.interpolate(F.normalize(wanted, dim=1), size=(56, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(images), upsampled, rtol=1e-4, atol=1e-4)
    assert model.mean == tuple(tower.image_mean)


@torch.no_grad()
def test_values_are_an_attention_that_sees_itself_alone(file: Path) -> None:
    encoder = loaded(file, name=f"{NAME}+values").net.get_submodule("encoder")
    blocks = encoder.get_submodule("published.transformer.resblocks")
    inputs: list[Tensor] = []
    handle = list(blocks.children())[-2].register_forward_hook(lambda *call: inputs.append(call[2]))
    maps, _ = encoder(torch.randn(1, 3, 64, 96))
    handle.remove()
    (x,), block = inputs, whole().visual.transformer.resblocks[-1]
    own = torch.full((x.shape[1], x.shape[1]), -torch.inf).fill_diagonal_(0)
    normed = block.ln_1(x)
    wanted, _ = block.attn(normed, normed, normed, need_weights=False, attn_mask=own)
    torch.testing.assert_close(maps[-1], wanted[:, 1:].transpose(1, 2).reshape(1, -1, 2, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dim"), [(NAME, DIM), (NAME, 8), (f"{NAME}+values", DIM)])
def test_any_size_and_gradients_for_all_that_learns(name: str, dim: int) -> None:
    model = build_model(f"open_clip:{name}", dim)
    model.freeze("norms")
    torch.nn.init.normal_(model.net.get_parameter("decoder.head.weight"))
    out = model(torch.randn(1, 3, 70, 45))
    assert out.shape == (1, dim, 18, 12)
    out.square().sin().mean().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_what_open_clip_does_not_have_or_is_no_vit() -> None:
    with pytest.raises(ConfigError, match="open_clip has no model 'ViT-B-33'. Did you mean"):
        build_model("open_clip:ViT-B-33", 8)
    with pytest.raises(ConfigError, match="RN50 is not CLIP's plain ViT"):
        build_model("open_clip:RN50", 8)


def test_weights_on_the_hub_are_those_of_the_same_activation() -> None:
    plain, quick = published_weights("ViT-B-32", quick=False), published_weights("ViT-B-32-quickgelu", quick=True)
    assert str(plain["laion2b_s34b_b79k"]) == "on the hub as laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert "openai" in quick and "openai" not in plain
