"""The backward pass of the fused loss: from the gradients of pixels' losses to those of low-resolution products."""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from labelmerge.losses.kernels import LOG2E, NOWHERE, _entries, _mix, _pixels, _slots


@triton.jit
def weigh(
    grads, chosen, starts_y, shares_y, starts_x, shares_x,
    scales, halves, lses, surpluses, strengths, others, grad_square, leasts, sums,
    batch, h, w, height, width,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """From the losses' gradients those of |V|² (`grad_square`) and what `backward` reads.

    `strengths` are the factors of the gradients of raw logits; `others` such that 2^(z - it) is a softmax times its
    strength. Of each program: the least strength, and the sum of d loss / d log scale.
    """
    part = tl.program_id(0) % (PARTS_Y * PARTS_X)
    i = tl.program_id(0) // (PARTS_Y * PARTS_X)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    image = (lane // (w + 1)).to(tl.int64)
    row = i + tl.zeros([1], tl.int32)
    y, _, exist_y = _pixels(starts_y, shares_y, row, part // PARTS_X * PIXELS_Y, PIXELS_Y, row >= 0)
    x, _, exist_x = _pixels(starts_x, shares_x, lane % (w + 1), part % PARTS_X * PIXELS_X, PIXELS_X, image < batch)
    exist = exist_y[:, :, None] & exist_x[None, :, :]
    pixel = image * height * width + y[:, :, None] * width + x[None, :, :]
    lanes = batch * (w + 1)
    before = i * (lanes * PARTS_Y * PARTS_X * PIXELS_Y * PIXELS_X)  # slots of the rows above
    slot = before + _slots(part, lane, lanes, PARTS_Y, PARTS_X, PIXELS_Y, PIXELS_X)
    has_slot = (lane < lanes)[None, None, :]
    labelled = tl.load(chosen + slot, mask=has_slot, other=-1) >= 0
    grad = tl.load(grads + pixel, mask=exist & labelled, other=0.0)
    strength = grad * tl.load(scales + slot, mask=has_slot, other=0.0)
    other = tl.load(lses + slot, mask=has_slot, other=0.0) - tl.log2(strength)
    tl.store(strengths + slot, strength, mask=has_slot)
    tl.store(others + slot, tl.where(strength == 0, NOWHERE, other), mask=has_slot)
    log_scale = grad * tl.load(surpluses + slot, mask=has_slot, other=0.0)
    tl.store(grad_square + pixel, -log_scale * tl.load(halves + slot, mask=has_slot, other=0.0), mask=exist)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(leasts + program, tl.min(tl.min(tl.min(strength, 0), 0), 0))
    tl.store(sums + program, tl.sum(tl.sum(tl.sum(log_scale, 0), 0), 0))


@triton.jit
def _summed(grad, share_x):
    """Pixels' gradients [LABELS, PIXELS_Y, PIXELS_X, LANES], summed for the cells on the right and on the left."""
    to_right = tl.sum(grad * share_x[None, None, :, :], 2)
    return to_right, tl.sum(grad, 2) - to_right


@triton.jit
def _gradients(
    a, b, c, d, share_y, share_x, scale2, target, rows, slot, has_slot, lses, strengths, pulls, bias, wanted,
    label, takes_part, block,
    HAS_ALLOWED: tl.constexpr, EVERYWHERE: tl.constexpr, HAS_TABLE: tl.constexpr, LABELS: tl.constexpr,
    PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The gradients of the inner products of LABELS labels with V, [LABELS, PIXELS_Y, PIXELS_X, LANES]."""
    lse = tl.load(lses + slot, mask=has_slot, other=0.0)
    strength = tl.load(strengths + slot, mask=has_slot, other=0.0)
    raw = _mix(
        a[:, None, None, :], b[:, None, None, :], c[:, None, None, :], d[:, None, None, :],
        share_y[None, :, :, None], share_x[None, None, :, :],
    )  # fmt: skip
    if HAS_TABLE:
        shift = _entries(bias, rows, block * LABELS, LABELS, PIXELS_Y, PIXELS_X, LANES)
        is_own = shift == float("-inf")
        if wanted is None:
            pull = tl.load(pulls + slot, mask=has_slot, other=0.0)
            shift = tl.where(is_own, -pull[None, :, :, :], shift - lse[None, :, :, :])
            grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
            grad = tl.where(is_own, -grad, grad)
        else:
            shift = tl.where(is_own, 0.0, shift) - lse[None, :, :, :]
            grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
            grad -= _entries(wanted, rows, block * LABELS, LABELS, PIXELS_Y, PIXELS_X, LANES)
        if HAS_ALLOWED and EVERYWHERE:
            grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
        elif HAS_ALLOWED:
            grad = tl.where(takes_part[:, None, None, :] | is_own, grad, 0.0)
    else:
        grad = tl.exp2(raw * scale2[None, :, :, :] - lse[None, :, :, :])
        if HAS_ALLOWED:
            grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
        grad = tl.where(target[None, :, :, :] == label[:, :, None, None], grad - 1.0, grad)
    return grad * strength[None, :, :, :]


@triton.jit
def _gradients_of_others(
    a, b, c, d, share_y, share_x, scale2, rows, slot, has_slot, others, bias, takes_part, block,
    HAS_ALLOWED: tl.constexpr, HAS_TABLE: tl.constexpr, LABELS: tl.constexpr,
    PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The same where no pixel has its label, or a positive of it, among these, and no strength is below 0."""
    shift = -tl.load(others + slot, mask=has_slot, other=NOWHERE)[None, :, :, :]
    raw = _mix(
        a[:, None, None, :], b[:, None, None, :], c[:, None, None, :], d[:, None, None, :],
        share_y[None, :, :, None], share_x[None, None, :, :],
    )  # fmt: skip
    if HAS_TABLE:
        shift += _entries(bias, rows, block * LABELS, LABELS, PIXELS_Y, PIXELS_X, LANES)
    grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
    if HAS_ALLOWED:
        grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
    return grad


@triton.jit
def backward(
    low, chosen, allowed, starts_y, shares_y, starts_x, shares_x,
    scales, lses, strengths, others, least, grad_low,
    bias, wanted, eights, pulls,
    batch, count, h, w, stride,
    HAS_ALLOWED: tl.constexpr, EVERYWHERE: tl.constexpr, HAS_TABLE: tl.constexpr,
    LABELS: tl.constexpr, ROWS: tl.constexpr,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """LABELS labels of ROWS · (LANES - 1) cells, from above to below.

    A cell's gradient has parts from four gaps. Two rows of gaps meet in a carried sum; two columns in a shift by one
    lane, for which the last lane's gap is computed twice, here and by the program on the right.
    """
    lane = tl.program_id(1) * (LANES - 1) + tl.arange(0, LANES)
    image = (lane // (w + 1)).to(tl.int64)
    j = lane % (w + 1)
    inside = image < batch
    block = tl.program_id(0)
    label = block * LABELS + tl.arange(0, LABELS)[:, None]
    is_label = label < count
    left, right = is_label & (inside & (j > 0))[None, :], is_label & (inside & (j < w))[None, :]
    takes_part = is_label
    if HAS_ALLOWED:
        takes_part = tl.load(allowed + image[None, :] * count + label, mask=is_label & inside[None, :], other=0) != 0
    plane = (image[None, :] * count + label) * h * w + j[None, :]
    mine = right & (tl.arange(0, LANES) < LANES - 1)[None, :]
    next_lane = tl.minimum(tl.arange(0, LANES) + 1, LANES - 1)[None, :] + tl.zeros([LABELS, LANES], tl.int32)

    first = tl.program_id(2) * ROWS
    row = first + tl.zeros([1], tl.int32)
    a = tl.load(low + plane + (first - 1) * w - 1, mask=left & (row > 0), other=0.0)
    b = tl.load(low + plane + (first - 1) * w, mask=right & (row > 0), other=0.0)
    sum_left = tl.zeros([LABELS, LANES], tl.float32)
    sum_right = tl.zeros([LABELS, LANES], tl.float32)
    lanes = batch * (w + 1)
    has_slot = (lane < lanes)[None, None, :]
    all_own = tl.load(least) < 0
    if PARTS_X == 1:
        x, share_x, exist_x = _pixels(starts_x, shares_x, j, 0, PIXELS_X, inside)
    for i in range(first, tl.minimum(first + ROWS, h) + 1):
        row = i + tl.zeros([1], tl.int32)
        c = tl.load(low + plane + i * w - 1, mask=left & (row < h), other=0.0)
        d = tl.load(low + plane + i * w, mask=right & (row < h), other=0.0)
        below_left = tl.zeros([LABELS, LANES], tl.float32)
        below_right = tl.zeros([LABELS, LANES], tl.float32)
        for part in range(PARTS_Y * PARTS_X):
            y, share_y, exist_y = _pixels(starts_y, shares_y, row, part // PARTS_X * PIXELS_Y, PIXELS_Y, row >= 0)
            if PARTS_X > 1:
                x, share_x, exist_x = _pixels(starts_x, shares_x, j, part % PARTS_X * PIXELS_X, PIXELS_X, inside)
            before = i * (lanes * PARTS_Y * PARTS_X * PIXELS_Y * PIXELS_X)  # slots of the rows above
            slot = before + _slots(part, lane, lanes, PARTS_Y, PARTS_X, PIXELS_Y, PIXELS_X)
            scale2 = tl.load(scales + slot, mask=has_slot, other=0.0) * LOG2E
            target = tl.load(chosen + slot, mask=has_slot, other=-1)
            rows = None
            if HAS_TABLE:
                row_of = tl.maximum(target, 0).to(tl.int64)
                rows = row_of * stride
                has_own = tl.load(eights + row_of * (stride // 8) + block).to(tl.int32)  # LABELS is 8
            else:
                has_own = (target // LABELS == block).to(tl.int32)
            # Mostly no pixel of the whole warp has its label among these, and no gradient comes in below 0.
            if all_own | (tl.max(tl.max(tl.max(has_own, 0), 0), 0) > 0):
                grad = _gradients(
                    a, b, c, d, share_y, share_x, scale2, target, rows, slot, has_slot, lses, strengths, pulls, bias,
                    wanted, label, takes_part, block,
                    HAS_ALLOWED, EVERYWHERE, HAS_TABLE, LABELS, PIXELS_Y, PIXELS_X, LANES,
                )  # fmt: skip
                to_right, to_left = _summed(grad, share_x)
            else:
                grad = _gradients_of_others(
                    a, b, c, d, share_y, share_x, scale2, rows, slot, has_slot, others, bias,
                    takes_part, block, HAS_ALLOWED, HAS_TABLE, LABELS, PIXELS_Y, PIXELS_X, LANES,
                )  # fmt: skip
                to_right, to_left = _summed(grad, share_x)
            down_right = tl.sum(to_right * share_y[None, :, :], 1)
            down_left = tl.sum(to_left * share_y[None, :, :], 1)
            sum_right += tl.sum(to_right, 1) - down_right
            sum_left += tl.sum(to_left, 1) - down_left
            below_right += down_right
            below_left += down_left
        cells = sum_right + tl.gather(sum_left, next_lane, 1)
        tl.store(grad_low + plane + (i - 1) * w, cells, mask=mine & (row > first))
        sum_left, sum_right = below_left, below_right
        a, b = c, d
