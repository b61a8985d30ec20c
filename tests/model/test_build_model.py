"""Networks by name: shapes, weights from files and from the hub, optimiser groups."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save_file
from torch.optim import AdamW

from labelmerge.errors import ConfigError
from labelmerge.model.build import MODELS, SegmentationModel, build_model
from labelmerge.model.checkpoint import save_checkpoint


@cache
def smallest() -> SegmentationModel:
    return build_model("segformer-b0", 8)


@pytest.mark.parametrize("name", ["tiny", "segformer-b0", "segformer-b5", "hrnet-w48"])
@torch.no_grad()
def test_shape_of_any_image(name: str) -> None:
    model = smallest() if name == "segformer-b0" else build_model(name, 8)
    model.eval()
    for height, width in ((64, 32), (33, 70)):
        out = model(torch.randn(1, 3, height, width))
        assert out.shape == (1, 8, -(-height // model.stride), -(-width // model.stride))
        assert out.isfinite().all()


def test_tiny_is_tiny_and_learns_from_one_image() -> None:
    model = build_model("tiny", 384)
    assert sum(parameter.numel() for parameter in model.parameters()) < 320_000
    model(torch.randn(1, 3, 24, 40)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_sizes_that_the_network_takes_go_through_unchanged() -> None:
    model, images = build_model("tiny", 8), torch.randn(1, 3, 64, 40)
    torch.testing.assert_close(model(images), model.net(images))


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown model 'segformer-b7'. Did you mean segformer-b"):
        build_model("segformer-b7", 8)
    assert len(MODELS) == 9


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped.pth"])
def test_pretrained_weights_from_a_file(tmp_path: Path, kind: str) -> None:
    encoder = smallest().net.get_submodule("encoder").state_dict()
    path = tmp_path / f"mit_b0.{kind}"
    if kind == "safetensors":
        save_file({**encoder, "head.weight": torch.zeros(1000, 256)}, path)
    elif kind == "pth":
        torch.save(encoder, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"backbone.{key}": value for key, value in encoder.items()}}, path)
    loaded = build_model("segformer-b0", 8, pretrained=str(path)).net.get_submodule("encoder").state_dict()
    assert all(torch.equal(loaded[key], encoder[key]) for key in encoder)


def test_pretrained_weights_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    whole = smallest().state_dict()
    encoder = {key: value for key, value in whole.items() if key.startswith("net.encoder.")}
    save_file({key.removeprefix("net.encoder."): value for key, value in encoder.items()}, tmp_path / "w.safetensors")
    tensors = {f"model.{key}": value for key, value in whole.items()}
    model = {"name": "segformer-b0", "embedding_dim": 8}
    save_checkpoint(tmp_path / "run", step=1, tensors=tensors, model=model, state={}, config={}, meta={})
    there = fsspec.filesystem("memory")
    there.put(str(tmp_path / "run"), "/weights/run", recursive=True)
    there.put_file(str(tmp_path / "w.safetensors"), "/weights/w.safetensors")
    for url in ("memory://weights/run", "memory://weights/w.safetensors"):
        loaded = build_model("segformer-b0", 8, pretrained=url).state_dict()
        assert encoder and all(torch.equal(loaded[key], value) for key, value in encoder.items())
    with pytest.raises(ConfigError, match="^memory://weights/no.pth: no such file"):
        build_model("segformer-b0", 8, pretrained="memory://weights/no.pth")
    there.rm("/weights", recursive=True)


def test_pretrained_weights_that_will_not_do(tmp_path: Path) -> None:
    def message(pretrained: object, name: str = "segformer-b0") -> str:
        with pytest.raises(ConfigError) as caught:
            build_model(name, 8, pretrained=str(pretrained))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in message(tmp_path / "none.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    assert "can't be read as weights" in message(tmp_path / "junk.pth")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    assert "can't be read as weights" in message(tmp_path / "junk.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "is not a state dict" in message(tmp_path / "list.pth")
    encoder = dict(smallest().net.get_submodule("encoder").state_dict())
    torch.save({key: value for key, value in encoder.items() if "block3" not in key}, tmp_path / "part.pth")
    assert "not the weights of the encoder of segformer-b0: 'block3" in message(tmp_path / "part.pth")
    torch.save({key: value[..., :1] for key, value in encoder.items()}, tmp_path / "other.pth")
    assert "has shape" in message(tmp_path / "other.pth")
    assert "no pretrained weights for the model 'tiny'" in message("imagenet", "tiny")


def test_a_hub_out_of_reach_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(*_: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.get_session", out_of_reach)  # asked first: the client alone retries long
    with pytest.raises(ConfigError) as caught:
        build_model("segformer-b0", 8, pretrained="imagenet")
    text = str(caught.value)
    assert "\n" not in text and "smp-hub/mit_b0.imagenet" in text
    assert "local copy" in text and "random weights" in text


def test_optimiser_groups() -> None:
    model = smallest()
    groups = model.parameter_groups(1e-3, 0.01, head_factor=10)
    AdamW(groups)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (1e-3, 0.01),
        (1e-3, 0.0),
        (1e-2, 0.01),
        (1e-2, 0.0),
    }
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert group["weight_decay"] == 0 or all(parameter.ndim > 1 for parameter in group["params"])
