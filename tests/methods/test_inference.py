"""Inference against the literal way: upsample every embedding, take every cosine."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import BankError, SampleError, UsageError
from labelmerge.methods import inference
from labelmerge.methods.inference import CosinePredictor, LabelVectors, segment, stripes
from labelmerge.model.views import Views, window_starts

from ..meta_device import Watch, prepare

Image = npt.NDArray[np.uint8]


class Tiny(nn.Module):
    """A strided convolution: embeddings of 5 channels at a quarter of the size."""

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    stride = 4

    def normalise(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (self.mean, self.std))
        return (images - mean) / std

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
    """[H, W, K] in float64, step by step as one would say it; every embedding at the image's own resolution."""
    model = copy.deepcopy(model).double()
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    unit = F.normalize(torch.from_numpy(labels).double(), dim=1)
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (model.mean, model.std))
    votes = []
    for view in views.of(height, width):
        shown = F.interpolate(pixels, size=(view.height, view.width), mode="bilinear", antialias=True)
        shown = (shown - mean) / std
        total = torch.zeros(height, width, len(labels), dtype=torch.float64)
        counts = torch.zeros(height, width, 1)
        for top in view.tops:
            for left in view.lefts:
                cut = shown[:, :, top : top + view.window_height, left : left + view.window_width]
                with torch.no_grad():
                    low = model(cut.flip(3) if view.mirror else cut)[0]
                for i in range(height):
                    for j in range(width):
                        y, x = (i + 0.5) * view.height / height - top, (j + 0.5) * view.width / width - left
                        if 0 <= y < view.window_height and 0 <= x < view.window_width:
                            x = view.window_width - x if view.mirror else x
                            embedding = bilinear(low, y / model.stride - 0.5, x / model.stride - 0.5)
                            total[i, j] += unit @ F.normalize(embedding, dim=0)
                            counts[i, j] += 1
        assert counts.min() >= 1, "a pixel is in no window"
        cosines = total / counts
        votes.append(torch.softmax(cosines / tau, dim=2) if views.several else cosines)
    return torch.stack(votes).mean(dim=0)


def bilinear(low: Tensor, y: float, x: float) -> Tensor:
    """The mix of the four embeddings of [C, h, w] around a place; outside the outermost centres, theirs."""
    y, x = min(max(y, 0), low.shape[1] - 1), min(max(x, 0), low.shape[2] - 1)
    i, j = int(y), int(x)
    below, right = min(i + 1, low.shape[1] - 1), min(j + 1, low.shape[2] - 1)
    upper = low[:, i, j] * (1 - (x - j)) + low[:, i, right] * (x - j)
    lower = low[:, below, j] * (1 - (x - j)) + low[:, below, right] * (x - j)
    return upper * (1 - (y - i)) + lower * (y - i)


def scores(model: Tiny, image: Image, labels: npt.NDArray[np.float32], tau: float, views: Views) -> Tensor:
    """[H, W, K]: what `segment` decides by."""
    found = [part for _, part in inference.stripes(model, image, LabelVectors(labels), tau=tau, views=views)]
    return torch.cat(found, dim=1).permute(1, 2, 0)


@pytest.mark.parametrize(
    "views",
    [
        Views(window=16),
        Views(window=1000),
        Views(flip=True),
        Views(short_edge=61, window=17, window_stride=0.4),
        Views(short_edge=9, window=8, window_stride=1),
        Views(scales=(0.5, 1.0, 1.75)),
        Views(scales=(0.5, 1.75), flip=True, window=20),
    ],
    ids=str,
)
def test_equals_the_literal_way(views: Views) -> None:
    model, image, labels = Tiny(), picture(19, 26), vectors(7)
    expected = literal(model, image, labels, 0.1, views)
    if views.several or views.window < 1000:  # seen once and whole, lengths don't matter and are left out
        torch.testing.assert_close(
            scores(model, image, labels, 0.1, views).double(), expected, rtol=0, atol=1e-5, check_dtype=False
        )
    classes = torch.from_numpy(segment(model, image, labels, tau=0.1, views=views))
    chosen = expected.gather(2, classes[:, :, None])[:, :, 0]
    assert (expected.amax(dim=2) - chosen).max() < 1e-5
    assert (classes == expected.argmax(dim=2)).float().mean() > 0.999


@pytest.mark.parametrize("views", [Views(), Views(window=8), Views(flip=True)])
def test_probabilities_are_the_softmax_of_the_literal_cosines(views: Views) -> None:
    model, image, labels, tau = Tiny(), picture(11, 13), vectors(4), 0.2
    predictor = CosinePredictor(model, LabelVectors(labels), tau=tau, views=views, device="cpu")
    found = torch.cat([each for _, each in predictor.probabilities(image)], dim=1).permute(1, 2, 0)
    expected = literal(model, image, labels, tau, views)
    if not views.several:  # which is cosines there
        expected = torch.softmax(expected / tau, dim=2)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=0)


def test_a_whole_view_is_torchs_own_upsampling() -> None:
    """32 x 48 is a multiple of the stride: nothing is padded, so `interpolate` is comparable."""
    model, image, labels = Tiny(), picture(32, 48), vectors(7)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        low = model((pixels - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1))
    full = F.interpolate(low, size=(32, 48), mode="bilinear")[0]
    cosines = torch.einsum("kd,dhw->hwk", F.normalize(torch.from_numpy(labels), dim=1), F.normalize(full, dim=0))
    found = segment(model, image, labels, tau=0.1)
    assert (torch.from_numpy(found) == cosines.argmax(dim=2)).float().mean() > 0.999


def test_windows_are_forgotten_and_each_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_STRIPE_ELEMENTS", 3 * 40 * 4)  # stripes of four rows
    model, seen = Tiny(), []
    model.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    view = next(Views(window=16, window_stride=0.5).of(64, 40))
    with torch.inference_mode():
        shown = inference._Seen(model, torch.zeros(3, 64, 40), (64, 40), view, torch.eye(5)[:3], norms=False)
        alive = []
        for top in range(0, 64, 4):
            shown.scores(slice(top, top + 4))
            alive.append(len(shown._rows))
    assert sum(seen) == len(view.tops) * len(view.lefts) == 7 * 4
    assert max(alive) <= 2 and alive[-1] == 0


@pytest.mark.parametrize("window", [0, 14])
def test_stripes_do_not_show(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(scales=(1.0, 0.75), flip=True, window=window)
    whole = segment(Tiny(), picture(33, 21), vectors(6), tau=0.1, views=views)
    monkeypatch.setattr(inference, "_STRIPE_ELEMENTS", 6 * 21 * 4)
    monkeypatch.setattr(inference, "_BLOCK_ELEMENTS", 60)
    np.testing.assert_array_equal(segment(Tiny(), picture(33, 21), vectors(6), tau=0.1, views=views), whole)


@pytest.mark.parametrize("window", [0, 14])
def test_a_gpu_is_not_waited_for_before_all_is_asked_of_it(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_STRIPE_ELEMENTS", 6 * 21 * 4)
    prepare(monkeypatch, inference)
    views = Views(scales=(1.0, 0.75), flip=True, window=window)
    model, labels = Tiny().to("meta"), LabelVectors(vectors(6))
    with Watch() as watch:
        given = stripes(model, picture(33, 21), labels, tau=0.1, views=views, device="meta")
        assert sum(scores.shape[1] for _, scores in given) == 33
    assert watch.found == []


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


def test_window_starts() -> None:
    assert window_starts(10, 10, 4) == (0,)
    assert window_starts(11, 10, 4) == (0, 1)
    assert window_starts(640 + 427, 640, 427) == (0, 427)
    assert Views(window=640).sizes(1080, 1920) == [(1080, 1920)]
    (view,) = Views(window=640).of(1080, 1920)
    assert view.tops == (0, 427, 440) and view.lefts == (0, 427, 854, 1280)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_windows_hold_every_pixel(length: int, window: int, step: int) -> None:
    window, step = min(window, length), min(step, window, length)
    starts = window_starts(length, window, step)
    assert {place for start in starts for place in range(start, start + window)} == set(range(length))
    assert list(starts) == sorted(set(starts)) and starts[-1] + window == length


@pytest.mark.parametrize("views", [Views(), Views(window=16), Views(scales=(0.5, 1.5), flip=True)], ids=str)
def test_several_vectors_of_a_label_score_as_the_largest(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_STRIPE_ELEMENTS", 500)
    model, image = Tiny(), picture(19, 26)
    every = vectors(7)
    groups = [every[:2], every[2:3], np.zeros((0, 5), np.float32), every[3:6], every[6:]]
    ready = LabelVectors(np.zeros((5, 5)), groups)
    assert ready.predicted_as.tolist() == [0, 1, -1, 3, 4] and ready.positions.tolist() == [0, 1, 3, 4]
    found = torch.cat([rows for _, rows in stripes(model, image, ready, tau=0.1, views=views)], dim=1)
    # One view after the other in float64: the largest of each label, then the softmax over the labels.
    votes = []
    for scale in views.scales:
        for flip in (False, True) if views.flip else (False,):
            one = Views(scales=(scale,), flip=flip, window=views.window)
            cosines = view_cosines(model, image, every, one, mirrored=flip)
            best = torch.stack([cosines[..., a:b].amax(dim=2) for a, b in ((0, 2), (2, 3), (3, 6), (6, 7))])
            votes.append(torch.softmax(best / 0.1, dim=0) if views.several else best)
    expected = torch.stack(votes).mean(dim=0)
    if views.several or views.window:
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-5)
    chosen = CosinePredictor(model, ready, tau=0.1, views=views, device="cpu").classes(image)
    wrong = chosen != np.array([0, 1, 3, 4])[expected.argmax(dim=0).numpy()]
    top = expected.topk(2, dim=0).values
    assert not (wrong & (top[0] - top[1] > 1e-4).numpy()).any()


def view_cosines(model: Tiny, image: Image, labels: npt.NDArray[np.float32], views: Views, *, mirrored: bool) -> Tensor:
    """[H, W, K] in float64: the cosines in one view alone."""
    if not mirrored:
        return literal(model, image, labels, 1, views)
    alone = Views(scales=views.scales, window=views.window)
    turned = literal(model, image[:, ::-1].copy(), labels, 1, alone)
    return turned.flip(1)


def test_equal_vectors_of_several_labels_are_the_first_labels() -> None:
    one, two, three = vectors(3)[:, None]
    ready = LabelVectors(np.zeros((4, 5)), [one, np.concatenate([one, two]), np.concatenate([two, one]), three])
    assert ready.predicted_as.tolist() == [0, 1, 1, 3] and ready.counts.tolist() == [1, 1, 1]
    plain = LabelVectors(vectors(3))
    np.testing.assert_array_equal(plain.vectors, LabelVectors(np.zeros((3, 5)), [one, two, three]).vectors)


@pytest.mark.parametrize("views", [Views(window=16), Views(scales=(0.5, 1.5))], ids=str)
def test_cosines_are_divided(views: Views) -> None:
    model, image, every = Tiny(), picture(19, 26), vectors(4)
    divisors = np.array([1, 0.5, 1, 0.8], np.float32)
    ready = LabelVectors(
        np.zeros((3, 5)), [every[:2], every[2:3], every[3:]], [divisors[:2], divisors[2:3], divisors[3:]]
    )
    found = torch.cat([rows for _, rows in stripes(model, image, ready, tau=0.1, views=views)], dim=1)
    votes = []
    for scale in views.scales:
        one = Views(scales=(scale,), window=views.window)
        cosines = view_cosines(model, image, every, one, mirrored=False) / torch.from_numpy(divisors).double()
        best = torch.stack([cosines[..., a:b].amax(dim=2) for a, b in ((0, 2), (2, 3), (3, 4))])
        votes.append(torch.softmax(best / 0.1, dim=0) if views.several else best)
    torch.testing.assert_close(found.double(), torch.stack(votes).mean(dim=0), atol=2e-5, rtol=1e-5)


def test_faults() -> None:
    with pytest.raises(BankError, match="none of the 2 labels has a vector"):
        LabelVectors(np.zeros((2, 5)))
    with pytest.raises(BankError, match="4 dimensions, the model's pixel embeddings 5"):
        segment(Tiny(), picture(8, 8), np.eye(4), tau=0.1)
    with pytest.raises(UsageError, match="window stride of 1.5 windows"):
        Views(window=8, window_stride=1.5)
    for scales in ((), (0.0,), (0.0001,), (float("nan"),)):
        with pytest.raises(UsageError, match="scales must be"):
            Views(scales=scales)
    with pytest.raises(UsageError, match="fewer than 0 pixels"):
        Views(short_edge=-1)
    with pytest.raises(SampleError, match="10000000x10000000 pixels .* the memory of cpu. Use a smaller --short-edge"):
        segment(Tiny(), picture(8, 8), np.eye(5), tau=0.1, views=Views(short_edge=10_000_000))
