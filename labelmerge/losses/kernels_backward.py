"""The backward pass of the fused loss: from the gradients of pixels' losses to those of low-resolution products."""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from labelmerge.losses.kernels import LOG2E, NOWHERE, _entries, _loaded, _of_map, _pixels, _slots, _stored, _to_map


@triton.jit
def _or(a, b):
    return a | b


@triton.jit(do_not_specialize=["batch", "h", "w", "height", "width"])
def weigh(
    grads, chosen, starts_y, shares_y, starts_x, shares_x,
    scales, halves, lses, surpluses, fours, strengths, others, owns, grad_square, leasts, sums,
    batch, h, w, height, width,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """From the losses' gradients those of |V|² (`grad_square`) and what `backward` reads.

    `strengths` are the factors of the gradients of raw logits; `others` such that 2^(z - it) is a softmax times its
    strength. Of each part of a gap, `owns` [h + 1, parts, B · (w + 1)]: whether a pixel has its label (with a table, a
    positive, as its `fours` say) among 4 k to 4 k + 3, or 256, 512, … further, is bit k. Of each program: the least
    strength, and the sum of d loss / d log scale.
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
    slots = _slots(i, part, lane, lanes, PARTS_Y, PARTS_X, PIXELS_Y)
    target = _of_map(chosen, slots, lane, lanes, -1, PIXELS_X)
    labelled = target >= 0
    if fours is None:
        own = labelled.to(tl.int64) << (tl.maximum(target, 0) // 4 % 64).to(tl.int64)
    else:
        own = _loaded(fours + tl.maximum(target, 0), labelled, 0)
    own = tl.reduce(tl.reduce(own, 0, _or), 0, _or)
    tl.store(owns + tl.program_id(0) * lanes + lane, own, mask=lane < lanes)
    grad = _loaded(grads + pixel, exist & labelled, 0.0)
    strength = grad * _of_map(scales, slots, lane, lanes, 0.0, PIXELS_X)
    other = _of_map(lses, slots, lane, lanes, 0.0, PIXELS_X) - tl.log2(strength)
    _to_map(strengths, slots, lane, lanes, strength, PIXELS_X)
    _to_map(others, slots, lane, lanes, tl.where(strength == 0, NOWHERE, other), PIXELS_X)
    log_scale = grad * _of_map(surpluses, slots, lane, lanes, 0.0, PIXELS_X)
    _stored(grad_square + pixel, -log_scale * _of_map(halves, slots, lane, lanes, 0.0, PIXELS_X), exist)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(leasts + program, tl.min(tl.min(tl.min(strength, 0), 0), 0))
    tl.store(sums + program, tl.sum(tl.sum(tl.sum(log_scale, 0), 0), 0))


@triton.jit
def _gradients(
    raw, scale2, target, slots, lane, lanes, lses, strengths, others, pulls, bias, wanted, stride,
    label, takes_part, block,
    HAS_OWN: tl.constexpr, HAS_ALLOWED: tl.constexpr, EVERYWHERE: tl.constexpr, HAS_TABLE: tl.constexpr,
    LABELS: tl.constexpr, PIXELS_X: tl.constexpr,
):  # fmt: skip
    """The gradients of the inner products of LABELS labels with a row's V, all [LABELS, 1, PIXELS_X, LANES].

    Not HAS_OWN: no pixel has its label, or a positive of it, among these, and no strength is below 0.
    """
    row_of = tl.maximum(target, 0).to(tl.int64)
    if not HAS_OWN:
        shift = -_of_map(others, slots, lane, lanes, NOWHERE, PIXELS_X)[None, :, :, :]
        if HAS_TABLE:
            shift += _entries(bias, stride, row_of, block * LABELS, LABELS)
        grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
        if HAS_ALLOWED:
            grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
        return grad
    lse = _of_map(lses, slots, lane, lanes, 0.0, PIXELS_X)
    strength = _of_map(strengths, slots, lane, lanes, 0.0, PIXELS_X)
    factor = strength[None, :, :, :]
    if HAS_TABLE:
        shift = _entries(bias, stride, row_of, block * LABELS, LABELS)
        is_own = shift == float("-inf")
        if wanted is None:
            pull = -_of_map(pulls, slots, lane, lanes, 0.0, PIXELS_X)
            shift = tl.where(is_own, pull[None, :, :, :], shift - lse[None, :, :, :])
            grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
            factor = tl.where(is_own, -strength[None, :, :, :], strength[None, :, :, :])
        else:
            shift = tl.where(is_own, 0.0, shift) - lse[None, :, :, :]
            grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
            grad -= _entries(wanted, stride, row_of, block * LABELS, LABELS)
        if HAS_ALLOWED and EVERYWHERE:
            grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
        elif HAS_ALLOWED:
            grad = tl.where(takes_part[:, None, None, :] | is_own, grad, 0.0)
    else:
        grad = tl.exp2(raw * scale2[None, :, :, :] - lse[None, :, :, :])
        if HAS_ALLOWED:
            grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
        grad = tl.where(target[None, :, :, :] == label[:, :, None, None], grad - 1.0, grad)
    return grad * factor


@triton.jit
def _add_gaps(
    above_both, above_right, below_both, below_right, a, b, c, d, i, part, lane, lanes, starts_y, shares_y, share_x,
    chosen, scales, lses, strengths, others, pulls, bias, wanted, stride, label, takes_part, block,
    HAS_OWN: tl.constexpr, HAS_ALLOWED: tl.constexpr, EVERYWHERE: tl.constexpr, HAS_TABLE: tl.constexpr,
    LABELS: tl.constexpr, PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of a part of row i of gaps to those of its four cells, row by row of pixels.

    The sums are of the row of cells above and of the one below, for both columns together and for the right one.
    """
    first = part // PARTS_X * PIXELS_Y
    start, stop = tl.load(starts_y + i) + first, tl.load(starts_y + i + 1)
    for row in tl.static_range(PIXELS_Y):
        slots = ((i * PARTS_Y * PIXELS_Y + first + row) * lanes + lane[None, :]) * PARTS_X + part % PARTS_X
        share_y = tl.load(shares_y + start + row, mask=start + row < stop, other=0.0)
        scale2 = _of_map(scales, slots, lane, lanes, 0.0, PIXELS_X) * LOG2E
        target = _of_map(chosen, slots, lane, lanes, -1, PIXELS_X)
        at_left, at_right = a + share_y * (c - a), b + share_y * (d - b)
        raw = at_left[:, None, None, :] + share_x[None, None, :, :] * (at_right - at_left)[:, None, None, :]
        grad = _gradients(
            raw, scale2, target, slots, lane, lanes, lses, strengths, others, pulls, bias, wanted, stride,
            label, takes_part, block, HAS_OWN, HAS_ALLOWED, EVERYWHERE, HAS_TABLE, LABELS, PIXELS_X,
        )  # fmt: skip
        grad = tl.reshape(grad, (LABELS, PIXELS_X, share_x.shape[1]))
        both, right = tl.sum(grad, 1), tl.sum(grad * share_x[None, :, :], 1)
        above_both += (1 - share_y) * both
        above_right += (1 - share_y) * right
        below_both += share_y * both
        below_right += share_y * right
    return above_both, above_right, below_both, below_right


@triton.jit(do_not_specialize=["batch", "count", "h", "w", "stride"])
def backward(
    low, chosen, owns, allowed, starts_y, shares_y, starts_x, shares_x,
    scales, lses, strengths, others, least, grad_low,
    bias, wanted, pulls,
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
        ask = is_label & inside[None, :]
        takes_part = _loaded(allowed + (image[None, :] * count + label), ask, 0) != 0
    plane = (image[None, :] * count + label) * h * w + j[None, :]
    mine = right & (tl.arange(0, LANES) < LANES - 1)[None, :]
    next_lane = tl.minimum(tl.arange(0, LANES) + 1, LANES - 1)[None, :] + tl.zeros([LABELS, LANES], tl.int32)

    first = tl.program_id(2) * ROWS
    last = tl.minimum(first + ROWS, h)
    # All that the next row needs is read before the computing for one begins.
    a = _loaded(low + plane + (first - 1) * w - 1, left & (first > 0), 0.0)
    b = _loaded(low + plane + (first - 1) * w, right & (first > 0), 0.0)
    c = _loaded(low + plane + first * w - 1, left & (first < h), 0.0)
    d = _loaded(low + plane + first * w, right & (first < h), 0.0)
    lanes = batch * (w + 1)
    own = tl.load(owns + first * (PARTS_Y * PARTS_X) * lanes + lane, mask=lane < lanes, other=0)
    sum_both = tl.zeros([LABELS, LANES], tl.float32)
    sum_right = tl.zeros([LABELS, LANES], tl.float32)
    all_own = tl.load(least) < 0
    bit = (block * (LABELS // 4) % 64).to(tl.int64)
    if PARTS_X == 1:
        x, share_x, exist_x = _pixels(starts_x, shares_x, j, 0, PIXELS_X, inside)
    for i in range(first, last + 1):
        next_c = _loaded(low + plane + (i + 1) * w - 1, left & (i + 1 < h), 0.0)
        next_d = _loaded(low + plane + (i + 1) * w, right & (i + 1 < h), 0.0)
        next_both = tl.zeros([LABELS, LANES], tl.float32)
        next_right = tl.zeros([LABELS, LANES], tl.float32)
        for part in range(PARTS_Y * PARTS_X):
            after = i * (PARTS_Y * PARTS_X) + part + 1
            next_own = tl.load(
                owns + after * lanes + lane, mask=(lane < lanes) & (after < (last + 1) * (PARTS_Y * PARTS_X)), other=0
            )
            if PARTS_X > 1:
                x, share_x, exist_x = _pixels(starts_x, shares_x, j, part % PARTS_X * PIXELS_X, PIXELS_X, inside)
            # Mostly no pixel of the whole warp has its label among these, and no gradient comes in below 0.
            if all_own | (tl.max((own >> bit).to(tl.int32) & (2 ** (LABELS // 4) - 1), 0) > 0):
                sum_both, sum_right, next_both, next_right = _add_gaps(
                    sum_both, sum_right, next_both, next_right, a, b, c, d, i, part, lane, lanes,
                    starts_y, shares_y, share_x, chosen, scales, lses, strengths, others, pulls,
                    bias, wanted, stride, label, takes_part, block,
                    True, HAS_ALLOWED, EVERYWHERE, HAS_TABLE, LABELS, PARTS_Y, PARTS_X, PIXELS_Y, PIXELS_X,
                )  # fmt: skip
            else:
                sum_both, sum_right, next_both, next_right = _add_gaps(
                    sum_both, sum_right, next_both, next_right, a, b, c, d, i, part, lane, lanes,
                    starts_y, shares_y, share_x, chosen, scales, lses, strengths, others, pulls,
                    bias, wanted, stride, label, takes_part, block,
                    False, HAS_ALLOWED, EVERYWHERE, HAS_TABLE, LABELS, PARTS_Y, PARTS_X, PIXELS_Y, PIXELS_X,
                )  # fmt: skip
            own = next_own
        cells = sum_right + tl.gather(sum_both - sum_right, next_lane, 1)
        at = grad_low + plane + (i - 1) * w
        _stored(at, cells.to(grad_low.dtype.element_ty), mine & (i > first))
        sum_both, sum_right = next_both, next_right
        a, b, c, d = c, d, next_c, next_d
