"""Encoders from timm: pyramids and plain ones, their normalisation, weights from files and from runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from labelmerge.errors import CheckpointError, ConfigError
from labelmerge.model.build import Pyramid, SegmentationModel, build_model, layers_of
from labelmerge.model.checkpoint import save_checkpoint

RESNET, VIT, DINOV2 = "timm:resnet10t", "timm:test_vit", "timm:vit_small_patch14_dinov2"


@cache
def model_of(name: str) -> SegmentationModel:
    return build_model(name, 8).eval()


@pytest.mark.parametrize("name", [RESNET, VIT, "timm:test_convnext", "timm:test_efficientnet"])
def test_embeddings_at_stride_4_and_gradients_everywhere(name: str) -> None:
    model = model_of(name)
    for height, width in ((64, 32), (45, 70)):
        out = model(torch.randn(1, 3, height, width))
        assert out.shape == (1, 8, -(-height // 4), -(-width // 4))
        assert out.isfinite().all()
    model(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()


def test_patches_of_14_come_out_at_stride_4() -> None:
    """DINOv2's patches are not a multiple of 4: its maps are brought to the size that the images have at stride 4."""
    with torch.device("cpu"):
        model = build_model("timm:eva02_tiny_patch14_224", 8).eval()
    assert model.divisor == 28
    with torch.no_grad():
        assert model(torch.randn(1, 3, 30, 57)).shape == (1, 8, 8, 15)


@pytest.mark.parametrize("name", [RESNET, VIT])
@torch.no_grad()
def test_pyramids_for_methods_with_a_head_of_their_own(name: str) -> None:
    whole = build_model(name, 8).eval()
    pyramid = Pyramid.of(whole).eval()
    assert pyramid.mean == whole.mean and not hasattr(pyramid.net, "decoder")
    maps = pyramid(torch.randn(1, 3, 64, 96))
    expected = [(pyramid.channels[place], 16 >> place, 24 >> place) for place in range(4)]
    assert [tuple(map_.shape[1:]) for map_ in maps] == expected


def test_each_model_has_its_own_normalisation() -> None:
    assert model_of(RESNET).mean == (0.485, 0.456, 0.406)
    assert model_of(VIT).mean == tuple(timm.create_model("test_vit").pretrained_cfg["mean"])


def test_weights_from_a_file_by_timm_s_names(tmp_path: Path) -> None:
    whole = timm.create_model("resnet10t")
    path = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    published = build_model(RESNET, 8, pretrained=str(path)).net.get_submodule("encoder.body.model").state_dict()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in published.items())
    with pytest.raises(ConfigError, match="not the weights of the encoder of timm:test_vit"):
        build_model(VIT, 8, pretrained=str(path))


def test_weights_from_a_run_of_other_labels(tmp_path: Path) -> None:
    old = build_model(RESNET, 12)
    save_checkpoint(
        tmp_path,
        step=1,
        tensors={f"model.{key}": value for key, value in old.state_dict().items()},
        model={"name": RESNET, "embedding_dim": 12},
        state={},
        config={},
        meta={},
    )
    new = build_model(RESNET, 8, pretrained=str(tmp_path))
    ours, theirs = (each.net.get_submodule("encoder").state_dict() for each in (new, old))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    with pytest.raises(ConfigError, match="That is a run of timm:resnet10t"):
        build_model(VIT, 8, pretrained=str(tmp_path))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        build_model(RESNET, 8, pretrained=str(tmp_path / "nothing"))


def test_models_that_will_not_do() -> None:
    with pytest.raises(ConfigError, match="timm .* has no model 'resnet10s'. Did you mean .*resnet10t"):
        build_model("timm:resnet10s", 8)
    with pytest.raises(ConfigError, match="mixer_s32_224 doesn't take images of any size"):
        build_model("timm:mixer_s32_224", 8)
    with pytest.raises(
        ConfigError, match="no weights called 'imagenet' for timm:resnet10t. Did you mean hub|Known: hub"
    ):
        build_model(RESNET, 8, pretrained="imagenet")


def test_layers_by_name() -> None:
    names = ["stem.weight", "a.blocks.0.w", "a.blocks.0.b", "a.blocks.1.w", "norm.w"]
    assert list(layers_of(names).values()) == [0, 1, 1, 2, 2]
    assert list(layers_of(["s.0.blocks.0.w", "s.0.blocks.1.w", "s.1.down.w"]).values()) == [1, 2, 3]


def test_layers_nearer_to_the_image_learn_slower() -> None:
    model = build_model(VIT, 8)
    model.layer_decay = 0.5
    groups = model.parameter_groups(1.0, 0.01, head_factor=3)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    blocks = 1 + max(int(name.split(".")[5]) for name in named if ".blocks." in name)
    body = "net.encoder.body.model"
    for place in range(blocks):
        assert rates[id(named[f"{body}.blocks.{place}.norm1.weight"])] == 0.5 ** (blocks - 1 - place)
    assert rates[id(named[f"{body}.patch_embed.proj.weight"])] == 0.5**blocks
    assert rates[id(named["net.decoder.head.weight"])] == 3
