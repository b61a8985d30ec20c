"""Inference against the literal way: upsample every embedding, take every cosine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import BankError, SampleError, UsageError
from labelmerge.evaluate import inference
from labelmerge.evaluate.inference import LabelVectors, Views, segment

Image = npt.NDArray[np.uint8]


class Tiny(nn.Module):
    """A strided convolution: embeddings of 5 channels at a quarter of the size."""

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    stride = 4

    def __init__(self, channels: int = 5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, channels, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        out: Tensor = self.conv(F.pad(images, (0, -width % 4, 0, -height % 4)))
        return out


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def vectors(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def literal(model: Tiny, image: Image, labels: npt.NDArray[np.float32], tau: float, views: Views) -> Tensor:
    """[H, W, K] mean softmax of the cosines, each view's embeddings upsampled in full."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    unit = F.normalize(torch.from_numpy(labels), dim=1)
    votes = []
    for size in views.sizes(*image.shape[:2]):
        for mirror in (False, True)[: 1 + views.flip]:
            view = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
            view = (view - torch.tensor(model.mean).reshape(1, 3, 1, 1)) / torch.tensor(model.std).reshape(1, 3, 1, 1)
            view = view.flip(3) if mirror else view
            with torch.no_grad():
                embeddings = F.interpolate(model(view), size=image.shape[:2], mode="bilinear")[0]
            embeddings = embeddings.flip(2) if mirror else embeddings
            cosines = torch.einsum("kd,dhw->hwk", unit, F.normalize(embeddings, dim=0))
            votes.append(torch.softmax(cosines / tau, dim=2))
    return torch.stack(votes).mean(dim=0)


def assert_best(classes: npt.NDArray[np.int64], votes: Tensor) -> None:
    """Every pixel's class has the largest vote, but for rounding."""
    chosen = votes.gather(2, torch.from_numpy(classes)[:, :, None])[:, :, 0]
    assert (votes.amax(dim=2) - chosen).max() < 1e-6
    assert (torch.from_numpy(classes) == votes.argmax(dim=2)).float().mean() > 0.999


# 32 x 48 and its scales are multiples of the stride: nothing is padded, so torch's own upsampling is comparable.
@pytest.mark.parametrize(
    "views",
    [
        Views(),
        Views(short_edge=16),
        Views(short_edge=64),
        Views(flip=True),
        Views(scales=(0.5, 1.0, 1.5)),
        Views(scales=(0.5, 2.0), flip=True),
    ],
)
def test_equals_the_literal_way(views: Views) -> None:
    model, image, labels = Tiny(), picture(32, 48), vectors(7)
    assert_best(segment(model, image, labels, tau=0.1, views=views), literal(model, image, labels, 0.1, views))


def test_lengths_are_those_of_the_upsampled_embeddings() -> None:
    model, image = Tiny(), picture(24, 40)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        low = inference._LowResolution.of(model, pixels, (24, 40), False, torch.eye(5), norms=True)
        full = F.interpolate(low.logits[None], size=(24, 40), mode="bilinear")[0]
        torch.testing.assert_close(low.dot_products(slice(0, 24)), full)
        torch.testing.assert_close(low.lengths(slice(0, 24)), full.norm(dim=0))


def test_stripes_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(scales=(1.0, 0.75), flip=True)
    whole = segment(Tiny(), picture(33, 21), vectors(6), tau=0.1, views=views)
    monkeypatch.setattr(inference, "_STRIPE_ELEMENTS", 6 * 21 * 4)
    np.testing.assert_array_equal(segment(Tiny(), picture(33, 21), vectors(6), tau=0.1, views=views), whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (30, 45)])
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    for views in (Views(), Views(short_edge=9, flip=True)):
        assert segment(Tiny(), picture(*size), vectors(3), tau=0.1, views=views).shape == size


def test_sizes_that_are_no_multiple_of_the_stride_do_not_shift_the_picture() -> None:
    """Left part dark, right part bright: the border stays where it is, mirrored or not."""
    model = Tiny(channels=2)
    with torch.no_grad():
        model.conv.weight.copy_(torch.stack([torch.ones(3, 4, 4), -torch.ones(3, 4, 4)]))
        model.conv.bias = None
    image = np.zeros((30, 43, 3), np.uint8)
    image[:, 20:] = 255
    for views in (Views(), Views(flip=True), Views(short_edge=61, scales=(0.5, 1.0), flip=True)):
        classes = segment(model, image, np.eye(2, dtype=np.float32), tau=0.1, views=views)
        assert (classes[:, :18] == 1).all() and (classes[:, 22:] == 0).all()


def test_equal_vectors_are_one_label_and_zero_vectors_none() -> None:
    labels = vectors(3)
    repeated = np.stack([np.zeros(5, np.float32), labels[0], labels[1], labels[0], labels[2], labels[2]])
    np.testing.assert_array_equal(LabelVectors(repeated).predicted_as, [-1, 1, 2, 1, 4, 4])
    for views in (Views(), Views(flip=True)):
        plain = segment(Tiny(), picture(16, 16), labels, tau=0.1, views=views)
        np.testing.assert_array_equal(
            segment(Tiny(), picture(16, 16), repeated, tau=0.1, views=views), np.array([1, 2, 4])[plain]
        )


def test_length_of_a_label_vector_does_not_matter() -> None:
    labels = vectors(4)
    longer = labels * np.array([[1.0], [50.0], [0.1], [3.0]], np.float32)
    np.testing.assert_array_equal(
        segment(Tiny(), picture(16, 16), longer, tau=0.1), segment(Tiny(), picture(16, 16), labels, tau=0.1)
    )


def test_sizes() -> None:
    assert Views().sizes(375, 500) == [(375, 500)]
    assert Views(short_edge=480, scales=(1.0, 0.5)).sizes(1080, 1920) == [(480, 853), (240, 427)]
    assert Views(short_edge=480, max_long_edge=600).sizes(100, 1000) == [(60, 600)]


def test_faults() -> None:
    with pytest.raises(BankError, match="none of the 2 labels has a vector"):
        LabelVectors(np.zeros((2, 5)))
    with pytest.raises(BankError, match="4 dimensions, the model's pixel embeddings 5"):
        segment(Tiny(), picture(8, 8), np.eye(4), tau=0.1)
    for scales in ((), (0.0,), (float("nan"),)):
        with pytest.raises(UsageError, match="scales must be"):
            Views(scales=scales)
    with pytest.raises(UsageError, match="fewer than 0 pixels"):
        Views(short_edge=-1)
    with pytest.raises(SampleError, match="10000000x10000000 pixels .* the memory of cpu. Use a smaller --short-edge"):
        segment(Tiny(), picture(8, 8), np.eye(5), tau=0.1, views=Views(short_edge=10_000_000))
