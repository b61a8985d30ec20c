"""The box loss against the mean of many sampled points, and against RoIAlign."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from labelmerge.losses import box_embedding_loss

from . import reference


def unit(count: int, channels: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, channels, dtype=torch.float64, generator=generator), dim=1)


def embeddings(batch: int, channels: int, h: int, w: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, h, w, dtype=torch.float64, generator=generator).requires_grad_()


@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    size=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    corners=st.lists(st.tuples(*[st.floats(0, 0.9), st.floats(0.05, 1)] * 2), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_equals_the_mean_over_the_box(
    h: int, w: int, size: tuple[int, int], corners: list[tuple[float, ...]], seed: int
) -> None:
    v = embeddings(2, 4, h, w, seed)
    height, width = size
    boxes = torch.tensor(
        [
            [x * width, y * height, min(1, x + across) * width, min(1, y + down) * height]
            for x, across, y, down in corners
        ],
        dtype=torch.float64,
    )
    lists = [boxes, boxes[:1]], [unit(len(boxes), 4), unit(1, 4, 2)]
    ours = box_embedding_loss(v, *lists, size)
    literal = reference.box_loss(v, *lists, size)
    torch.testing.assert_close(ours, literal, rtol=2e-3, atol=2e-3)


def test_gradient() -> None:
    boxes, teachers = torch.tensor([[1.0, 2, 9, 7.5], [0, 0, 12, 10]]), unit(2, 4)
    assert torch.autograd.gradcheck(
        lambda v: box_embedding_loss(v, [boxes], [teachers], (10, 12)), embeddings(1, 4, 3, 4)
    )


def test_is_what_roi_align_approximates() -> None:
    v = embeddings(1, 6, 8, 10).detach()
    boxes, teachers = torch.tensor([[4.0, 3, 33, 27], [10, 10, 14, 12]], dtype=torch.float64), unit(2, 6)
    pooled = roi_align(v, [boxes], output_size=1, spatial_scale=0.25, sampling_ratio=200, aligned=True)
    expected = (F.normalize(pooled.flatten(1), dim=1) - teachers).abs().sum(1).mean()
    torch.testing.assert_close(box_embedding_loss(v, [boxes], [teachers], (32, 40)), expected, rtol=1e-4, atol=1e-4)


def test_the_whole_image_is_one_box_and_a_perfect_embedding_costs_nothing() -> None:
    teacher = unit(1, 5)
    v = 7 * teacher[0, None, :, None, None].expand(1, 5, 3, 4)
    whole = torch.tensor([[0.0, 0, 16, 12]])
    assert float(box_embedding_loss(v, [whole], [teacher], (12, 16))) < 1e-12


def test_no_boxes_is_zero_with_zero_gradient() -> None:
    v = embeddings(2, 4, 3, 3)
    outside = torch.tensor([[20.0, 1, 30, 5], [4, 4, 4, 9]])  # beside the image; without width
    loss = box_embedding_loss(v, [torch.zeros(0, 4), outside], [torch.zeros(0, 4), unit(2, 4)], (12, 12))
    (gradient,) = torch.autograd.grad(loss, v)
    assert loss == 0 and (gradient == 0).all()


def test_what_lies_outside_the_image_is_cut_off_or_does_not_count() -> None:
    v, teachers = embeddings(1, 4, 3, 3), unit(2, 4)
    inside = box_embedding_loss(v, [torch.tensor([[0.0, 2, 5, 12]])], [teachers[:1]], (12, 12))
    over = torch.tensor([[-9.0, 2, 5, 40], [13, 13, 20, 20]])
    torch.testing.assert_close(box_embedding_loss(v, [over], [teachers], (12, 12)), inside)


def test_bfloat16_under_autocast_is_computed_in_float32() -> None:
    v, teachers, boxes = embeddings(1, 16, 4, 4).detach().bfloat16(), unit(1, 16), torch.tensor([[1.0, 1, 9, 9]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = box_embedding_loss(v, [boxes], [teachers.float()], (16, 16))
    torch.testing.assert_close(ours, box_embedding_loss(v.double(), [boxes], [teachers], (16, 16)).float())


def test_lists_that_do_not_fit() -> None:
    v = torch.zeros(1, 4, 3, 3)
    with pytest.raises(ValueError, match="2 lists of boxes"):
        box_embedding_loss(v, [torch.zeros(0, 4)] * 2, [torch.zeros(0, 4)] * 2, (12, 12))
    with pytest.raises(ValueError, match="do not fit"):
        box_embedding_loss(v, [torch.zeros(2, 4)], [torch.zeros(1, 4)], (12, 12))
