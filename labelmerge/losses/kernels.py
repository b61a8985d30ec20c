"""The Triton kernels of `labelmerge.losses.fused`.

Pixels are grouped by the low-resolution cells that they are mixed from. *Gap* (i, j) is the rectangle between the
centres of cells (i - 1, j - 1) and (i, j); there are (h + 1) · (w + 1) gaps, those at the borders with two cells or
one. A thread owns a gap: it loads four numbers per label and makes all of the gap's pixels from them, so sums over
labels (forward) and over pixels (backward) stay within the thread. Nothing is added atomically: the results are the
same bits in every run.

All tensors are contiguous but `v` and those said to be like it. Maps of pixels are [B, height, width], `low` and its
gradient [B, count, h, w], `products` and its gradient [B, 4, h, w]: each cell's inner product with itself, with the
cell on the right, with the one below, and the mean of those along both diagonals of the square that it begins.
"""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

NOTHING = tl.constexpr(-3.0e38)  # the logit of a label that does not take part: finite, so that 0 · ∞ cannot arise
FLOOR = tl.constexpr(-1.0e37)  # of log-sum-exps: above NOTHING, so that nothing has a gradient where none takes part
NOWHERE = tl.constexpr(3.0e38)  # the log-sum-exp of a pixel without a label: it has no gradient
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _mix(a, b, c, d, share_y, share_x):
    """The bilinear mixture of a b (above) and c d (below)."""
    left = a + share_y * (c - a)
    right = b + share_y * (d - b)
    return left + share_x * (right - left)


@triton.jit
def _pixels(starts, shares, gap, first, COUNT: tl.constexpr, inside):
    """Pixels `first`… of gaps [L] along an axis, as [COUNT, L]: their places, shares and which exist."""
    start = tl.load(starts + gap, mask=inside, other=0)
    stop = tl.load(starts + gap + 1, mask=inside, other=0)
    at = start[None, :] + first + tl.arange(0, COUNT)[:, None]
    exist = at < stop[None, :]
    return at, tl.load(shares + at, mask=exist, other=0.0), exist


@triton.jit
def _mix_of(cells, w, some, above, below, left, right, share_y, share_x):
    """The mixture at each pixel from `cells`, pointers to its lower right ones; 0 where not `some`."""
    return _mix(
        tl.load(cells - w - 1, mask=some & above & left[None, None, :], other=0.0),
        tl.load(cells - w, mask=some & above & right[None, None, :], other=0.0),
        tl.load(cells - 1, mask=some & below & left[None, None, :], other=0.0),
        tl.load(cells, mask=some & below & right[None, None, :], other=0.0),
        share_y, share_x,
    )  # fmt: skip


@triton.jit
def _entries(table, rows, first, LABELS: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr, LANES: tl.constexpr):
    """LABELS entries from `first` on of each pixel's row of the table, as [LABELS, PY, PX, LANES].

    They are read by fours, which the rows' padding allows, without a mask. Pixels near each other mostly share a row.
    """
    fours = first + 4 * tl.arange(0, LABELS // 4)[:, None] + tl.arange(0, 4)[None, :]
    entries = tl.load(table + (rows[None, None, :, :, :] + fours[:, :, None, None, None]))
    return tl.reshape(entries, (LABELS, PY, PX, LANES))


@triton.jit
def forward(
    low, products, tau, targets, allowed, starts_y, shares_y, starts_x, shares_x,
    losses, scales, halves, lses, surpluses,
    bias, wanted, columns, counts, pulls,
    batch, count, h, w, height, width, ignore, classes, stride, most_columns,
    HAS_ALLOWED: tl.constexpr, EVERYWHERE: tl.constexpr, HAS_TABLE: tl.constexpr, LABELS: tl.constexpr,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One part of each of LANES gaps of one row: all labels, with a running maximum and sum.

    With a table, its [classes, stride] `bias` is added to the logits, which leaves out a pixel's positives; they follow
    one by one from the list `columns` [classes, most_columns]. What is said of labels here is then meant of columns.
    What is not `allowed` does not compete and, where that holds EVERYWHERE, is no positive either.
    """
    part = tl.program_id(0) % (PARTS_Y * PARTS_X)
    i = tl.program_id(0) // (PARTS_Y * PARTS_X)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    image = (lane // (w + 1)).to(tl.int64)
    j = lane % (w + 1)
    inside = image < batch
    row = i + tl.zeros([1], tl.int32)
    y, share_y, exist_y = _pixels(starts_y, shares_y, row, part // PARTS_X * PIXELS_Y, PIXELS_Y, row >= 0)
    x, share_x, exist_x = _pixels(starts_x, shares_x, j, part % PARTS_X * PIXELS_X, PIXELS_X, inside)
    # All that follows is [PIXELS_Y, PIXELS_X, LANES], with a first axis for the labels within the loop.
    share_y, share_x = share_y[:, :, None], share_x[None, :, :]
    exist = exist_y[:, :, None] & exist_x[None, :, :]
    pixel = image * height * width + y[:, :, None] * width + x[None, :, :]

    above, below, left, right = row > 0, row < h, inside & (j > 0), inside & (j < w)
    at = image * 4 * h * w + i * w + j  # of the cell below on the right, in the map of products with itself
    down = products + 2 * h * w
    own_a = tl.load(products + at - w - 1, mask=above & left, other=0.0)
    own_b = tl.load(products + at - w, mask=above & right, other=0.0)
    own_c = tl.load(products + at - 1, mask=below & left, other=0.0)
    own_d = tl.load(products + at, mask=below & right, other=0.0)
    beside_above = tl.load(products + h * w + at - w - 1, mask=above & left & right, other=0.0)
    beside_below = tl.load(products + h * w + at - 1, mask=below & left & right, other=0.0)
    down_left = tl.load(down + at - w - 1, mask=above & below & left, other=0.0)
    down_right = tl.load(down + at - w, mask=above & below & right, other=0.0)
    diagonal = tl.load(down + h * w + at - w - 1, mask=above & below & left & right, other=0.0)
    x_before, x_both, x_after = (1 - share_x) * (1 - share_x), 2 * share_x * (1 - share_x), share_x * share_x
    square = (1 - share_y) * (1 - share_y) * (x_before * own_a + x_both * beside_above + x_after * own_b)
    square += share_y * share_y * (x_before * own_c + x_both * beside_below + x_after * own_d)
    square += 2 * share_y * (1 - share_y) * (x_before * down_left + x_both * diagonal + x_after * down_right)
    # As in the chunked version: 16 ε of the summands.
    floor = 1.9073486328125e-06 * _mix(own_a, own_b, own_c, own_d, share_y, share_x) + 1e-24
    certain = square > floor
    square = tl.where(certain, square, floor)
    scale = 1.0 / (tl.sqrt(square) * tl.load(tau))
    tl.store(scales + pixel, scale, mask=exist)
    tl.store(halves + pixel, tl.where(certain, 0.5 / square, 0.0), mask=exist)
    scale2 = scale * LOG2E  # logits are kept to base 2, the base of the hardware's exponential

    if HAS_TABLE:
        target = tl.load(targets + pixel, mask=exist, other=0).to(tl.int64)
        is_class = (target >= 0) & (target < classes)
        found = exist & (target != ignore) & is_class
        row_of = tl.where(is_class, target, 0)
        rows = row_of * stride

    plane = h * w
    corner = image * count * plane + i * w + j
    most = tl.full([PIXELS_Y, PIXELS_X, LANES], NOTHING, tl.float32)
    total = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
    mean = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
    for first in range(0, count, LABELS):
        label = first + tl.arange(0, LABELS)[:, None]
        is_label = label < count
        cells = low + corner[None, :] + label.to(tl.int64) * plane
        a = tl.load(cells - w - 1, mask=is_label & above & left[None, :], other=0.0)
        b = tl.load(cells - w, mask=is_label & above & right[None, :], other=0.0)
        c = tl.load(cells - 1, mask=is_label & below & left[None, :], other=0.0)
        d = tl.load(cells, mask=is_label & below & right[None, :], other=0.0)
        raw = _mix(
            a[:, None, None, :], b[:, None, None, :], c[:, None, None, :], d[:, None, None, :],
            share_y[None, :, :, :], share_x[None, :, :, :],
        )  # fmt: skip
        if HAS_ALLOWED:
            ask = is_label & inside[None, :]
            takes_part = tl.load(allowed + image[None, :] * count + label, mask=ask, other=0) != 0
        else:
            takes_part = is_label & inside[None, :]
        if HAS_TABLE:
            shift = _entries(bias, rows, first, LABELS, PIXELS_Y, PIXELS_X, LANES)
            if HAS_ALLOWED:
                shift = tl.where(takes_part[:, None, None, :], shift, NOTHING)
            z = raw * scale2[None, :, :, :] + shift
        else:
            shift = tl.where(takes_part, 0.0, NOTHING)
            z = raw * scale2[None, :, :, :] + shift[:, None, None, :]
        now = tl.maximum(most, tl.max(z, 0))
        weight = tl.exp2(z - now[None, :, :, :])
        fade = tl.exp2(most - now)
        total = total * fade + tl.sum(weight, 0)
        mean = mean * fade + tl.sum(weight * raw, 0)
        most = now

    if HAS_TABLE:
        # What competes is done, and makes way for the positives.
        neg = most + tl.log2(total)
        neg_mean = mean / tl.maximum(total, 1.0)
        most = tl.full([PIXELS_Y, PIXELS_X, LANES], NOTHING, tl.float32)
        total = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        mean = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        asked = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        lost = row_of < 0  # none
        own_count = tl.load(counts + row_of, mask=found, other=0)
        for k in range(0, tl.max(tl.max(tl.max(own_count, 2), 1), 0)):
            one = k < own_count
            column = tl.load(columns + row_of * most_columns + k, mask=one, other=0)
            owns = low + corner[None, None, :] + column * plane
            raw_own = _mix_of(owns, w, one, above, below, left, right, share_y, share_x)
            if wanted is not None:
                share = tl.load(wanted + rows + column, mask=one, other=0.0)
                asked += share * raw_own
            if HAS_ALLOWED and EVERYWHERE:
                may = tl.load(allowed + image[None, None, :] * count + column, mask=one, other=0) != 0
                if wanted is not None:
                    lost = lost | (one & (may == 0) & (share > 0))
                one = one & may
            z_own = tl.where(one, raw_own * scale2, NOTHING)
            now_own = tl.maximum(most, z_own)
            weight_own = tl.where(one, tl.exp2(z_own - now_own), 0.0)
            fade_own = tl.exp2(most - now_own)
            total = total * fade_own + weight_own
            mean = mean * fade_own + weight_own * raw_own
            most = now_own
        pos = tl.maximum(most + tl.log2(total), NOTHING)
        more = tl.log2(1.0 + tl.exp2(-tl.abs(neg - pos)))
        lse = tl.maximum(neg, pos) + more
        surplus = tl.exp2(neg - lse)
        if wanted is None:
            loss = (tl.maximum(neg - pos, 0.0) + more) * LN2
            lost = pos < FLOOR  # none of them is allowed
            surplus = surplus * (neg_mean - mean / tl.maximum(total, 1.0))
        else:
            loss = (lse - asked * scale2) * LN2
            surplus = surplus * neg_mean + tl.exp2(pos - lse) * mean / tl.maximum(total, 1.0) - asked
        loss = tl.where(lost, float("inf"), loss)
        loss = tl.where(is_class, loss, float("nan"))
        tl.store(losses + pixel, tl.where(exist & (target != ignore), loss, 0.0), mask=exist)
        tl.store(lses + pixel, tl.where(found, tl.maximum(lse, FLOOR), NOWHERE), mask=exist)
        # So that exp(z - pull) is a positive's share of them, exp(z - pos), times the probability of the others.
        tl.store(pulls + pixel, tl.where(found, pos - neg + lse, NOWHERE), mask=exist)
        tl.store(surpluses + pixel, surplus * (scale2 * LN2), mask=exist)
    else:
        target = tl.load(targets + pixel, mask=exist, other=0).to(tl.int64)
        labelled = exist & (target != ignore)
        is_class = (target >= 0) & (target < count)
        found = labelled & is_class
        owns = low + corner[None, None, :] + tl.where(found, target, 0) * plane
        own = _mix_of(owns, w, found, above, below, left, right, share_y, share_x)
        lse = most + tl.log2(total)
        loss = (lse - own * scale2) * LN2
        if HAS_ALLOWED:
            may = tl.load(allowed + image[None, None, :] * count + target, mask=found, other=1) != 0
            loss = tl.where(may, loss, float("inf"))
        loss = tl.where(is_class, loss, float("nan"))
        tl.store(losses + pixel, tl.where(labelled, loss, 0.0), mask=exist)
        tl.store(lses + pixel, lse, mask=exist)
        tl.store(surpluses + pixel, (mean / total - own) * (scale2 * LN2), mask=exist)


@triton.jit
def backward(
    low, targets, allowed, starts_y, shares_y, starts_x, shares_x,
    scales, lses, strengths, grad_low,
    bias, wanted, pulls,
    batch, count, h, w, height, width, classes, stride,
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
    label = tl.program_id(0) * LABELS + tl.arange(0, LABELS)[:, None]
    is_label = label < count
    left, right = is_label & (inside & (j > 0))[None, :], is_label & (inside & (j < w))[None, :]
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
    for i in range(first, tl.minimum(first + ROWS, h) + 1):
        row = i + tl.zeros([1], tl.int32)
        c = tl.load(low + plane + i * w - 1, mask=left & (row < h), other=0.0)
        d = tl.load(low + plane + i * w, mask=right & (row < h), other=0.0)
        below_left = tl.zeros([LABELS, LANES], tl.float32)
        below_right = tl.zeros([LABELS, LANES], tl.float32)
        for part in range(PARTS_Y * PARTS_X):
            y, share_y, exist_y = _pixels(starts_y, shares_y, row, part // PARTS_X * PIXELS_Y, PIXELS_Y, row >= 0)
            x, share_x, exist_x = _pixels(starts_x, shares_x, j, part % PARTS_X * PIXELS_X, PIXELS_X, inside)
            exist = exist_y[:, :, None] & exist_x[None, :, :]
            pixel = image * height * width + y[:, :, None] * width + x[None, :, :]
            scale2 = tl.load(scales + pixel, mask=exist, other=0.0) * LOG2E
            lse = tl.load(lses + pixel, mask=exist, other=0.0)
            strength = tl.load(strengths + pixel, mask=exist, other=0.0)
            target = tl.load(targets + pixel, mask=exist, other=0).to(tl.int32)
            raw = _mix(
                a[:, None, None, :], b[:, None, None, :], c[:, None, None, :], d[:, None, None, :],
                share_y[None, :, :, None], share_x[None, None, :, :],
            )  # fmt: skip
            if HAS_TABLE:
                rows = tl.where((target >= 0) & (target < classes), target, 0).to(tl.int64) * stride
                shift = _entries(bias, rows, tl.program_id(0) * LABELS, LABELS, PIXELS_Y, PIXELS_X, LANES)
                is_own = shift == float("-inf")
                if wanted is None:
                    pull = tl.load(pulls + pixel, mask=exist, other=0.0)
                    shift = tl.where(is_own, -pull[None, :, :, :], shift - lse[None, :, :, :])
                    grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
                    grad = tl.where(is_own, -grad, grad)
                else:
                    shift = tl.where(is_own, 0.0, shift) - lse[None, :, :, :]
                    grad = tl.exp2(raw * scale2[None, :, :, :] + shift)
                    grad -= _entries(wanted, rows, tl.program_id(0) * LABELS, LABELS, PIXELS_Y, PIXELS_X, LANES)
                if HAS_ALLOWED and EVERYWHERE:
                    grad = tl.where(takes_part[:, None, None, :], grad, 0.0)
                elif HAS_ALLOWED:
                    grad = tl.where(takes_part[:, None, None, :] | is_own, grad, 0.0)
                grad = grad * strength[None, :, :, :]
            else:
                softmax = tl.exp2(raw * scale2[None, :, :, :] - lse[None, :, :, :])
                if HAS_ALLOWED:
                    softmax = tl.where(takes_part[:, None, None, :], softmax, 0.0)
                hot = target[None, :, :, :] == label[:, :, None, None]
                grad = tl.where(hot, softmax - 1.0, softmax) * strength[None, :, :, :]
            # To the columns, [LABELS, PIXELS_Y, LANES], then to the rows.
            to_right = tl.sum(grad * share_x[None, None, :, :], 2)
            to_left = tl.sum(grad, 2) - to_right
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


@triton.jit
def products(
    v, products, stride_image, stride_channel, stride_y, stride_x, cells, channels, h, w,
    CHANNELS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Of each cell: its product with itself, with the right one, the one below, and the mean of both diagonals."""
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    image, y, x = cell // (h * w), cell // w % h, cell % w
    inside = (cell < cells)[None, :]
    has_right, has_below = inside & (x + 1 < w)[None, :], inside & (y + 1 < h)[None, :]
    at = v + (image * stride_image + y * stride_y + x * stride_x)[None, :]
    itself = tl.zeros([CHANNELS, CELLS], tl.float32)
    beside = tl.zeros([CHANNELS, CELLS], tl.float32)
    down = tl.zeros([CHANNELS, CELLS], tl.float32)
    diagonal = tl.zeros([CHANNELS, CELLS], tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[:, None]
        here = at + channel.to(tl.int64) * stride_channel
        some = channel < channels
        a = tl.load(here, mask=some & inside, other=0.0).to(tl.float32)
        b = tl.load(here + stride_x, mask=some & has_right, other=0.0).to(tl.float32)
        c = tl.load(here + stride_y, mask=some & has_below, other=0.0).to(tl.float32)
        d = tl.load(here + stride_y + stride_x, mask=some & has_right & has_below, other=0.0).to(tl.float32)
        itself += a * a
        beside += a * b
        down += a * c
        diagonal += a * d + b * c
    out = products + image * 4 * h * w + y * w + x
    tl.store(out, tl.sum(itself, 0), mask=cell < cells)
    tl.store(out + h * w, tl.sum(beside, 0), mask=cell < cells)
    tl.store(out + 2 * h * w, tl.sum(down, 0), mask=cell < cells)
    has_diagonal = (x + 1 < w) & (y + 1 < h)
    tl.store(out + 3 * h * w, tl.where(has_diagonal, tl.sum(diagonal, 0) / 2, 0.0), mask=cell < cells)


@triton.jit
def products_backward(
    v, grad_products, onto, out,
    stride_image, stride_channel, stride_y, stride_x, onto_image, onto_channel, onto_y, onto_x,
    cells, channels, h, w, CHANNELS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """out = onto + each cell's neighbours, weighted by the gradients of the products with them."""
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    image, y, x = cell // (h * w), cell // w % h, cell % w
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[:, None]
        some = (channel < channels) & (cell < cells)[None, :]
        place = (image * onto_image + y * onto_y + x * onto_x)[None, :] + channel.to(tl.int64) * onto_channel
        grad = tl.load(onto + place, mask=some, other=0.0).to(tl.float32)
        for dy in tl.static_range(-1, 2):
            for dx in tl.static_range(-1, 2):
                there = (cell < cells) & (x + dx >= 0) & (x + dx < w) & (y + dy >= 0) & (y + dy < h)
                # A product belongs to its upper cell on the left: the pair's smaller row and column.
                owner_y = y + (dy if dy < 0 else 0)
                owner_x = x + (dx if dx < 0 else 0)
                kind = (dx != 0) + 2 * (dy != 0)
                owner = ((image * 4 + kind) * h + owner_y) * w + owner_x
                weight = tl.load(grad_products + owner, mask=there, other=0.0)
                weight *= 2.0 if kind == 0 else (0.5 if kind == 3 else 1.0)
                here = v + (image * stride_image + (y + dy) * stride_y + (x + dx) * stride_x)[None, :]
                value = tl.load(here + channel.to(tl.int64) * stride_channel, mask=some & there[None, :], other=0.0)
                grad += weight[None, :] * value.to(tl.float32)
        tl.store(out + place, grad, mask=some)
