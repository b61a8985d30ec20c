"""The Triton kernels of `labelmerge.losses.fused`: what they share, and the forward pass.

Pixels are grouped by the low-resolution cells that they are mixed from. *Gap* (i, j) is the rectangle between the
centres of cells (i - 1, j - 1) and (i, j); there are (h + 1) · (w + 1) gaps, those at the borders with two cells or
one. A thread owns a gap: it loads four numbers per label and makes all of the gap's pixels from them, so sums over
labels (forward) and over pixels (backward) stay within the thread. Nothing is added atomically: the results are the
same bits in every run.

All tensors are contiguous but `v` and those said to be like it. `low` and its gradient are [B, count, h, w], `products`
and its gradient [B, 4, h, w]: each cell's inner product with itself, with the cell on the right, with the one below,
and the mean of those along both diagonals of the square that it begins. Maps of pixels are [B, height, width] where
autograd sees them, and [h + 1, most rows of a gap, B · (w + 1), most columns] elsewhere. In those *slots* a warp's gaps
lie side by side, so that it reads them in one go; a slot without a pixel is one without a label.
"""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

NOTHING = tl.constexpr(-3.0e38)  # the logit of a label that does not take part: finite, so that 0 · ∞ cannot arise
FLOOR = tl.constexpr(-1.0e37)  # of log-sum-exps: above NOTHING, so that nothing has a gradient where none takes part
NOWHERE = tl.constexpr(3.0e38)  # the log-sum-exp of a pixel without a label: it has no gradient
CALM = tl.constexpr(45.0)  # twice this, times any count of labels, is within float32's exponents
FAR = tl.constexpr(-1.0e30)  # an inner product with V that stands for no label: its exponential is 0
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _mix(a, b, c, d, share_y, share_x):
    """The bilinear mixture of a b (above) and c d (below)."""
    left = a + share_y * (c - a)
    right = b + share_y * (d - b)
    return left + share_x * (right - left)


@triton.jit
def _loaded(pointers, mask, other):
    """What lies at [..., LANES], each lane's numbers in registers of its own thread.

    It is read as one line, of which a warp takes 32 at a time. In more dimensions each version of Triton shares out
    what it reads among a warp's threads as it likes, and they would have to exchange it.
    """
    count: tl.constexpr = pointers.numel
    mask = tl.reshape(tl.broadcast_to(mask, pointers.shape), (count,))
    return tl.reshape(tl.load(tl.reshape(pointers, (count,)), mask=mask, other=other), pointers.shape)


@triton.jit
def _stored(pointers, values, mask):
    """The converse of `_loaded`."""
    count: tl.constexpr = pointers.numel
    mask = tl.reshape(tl.broadcast_to(mask, pointers.shape), (count,))
    tl.store(tl.reshape(pointers, (count,)), tl.reshape(values, (count,)), mask=mask)


@triton.jit
def _pixels(starts, shares, gap, first, COUNT: tl.constexpr, inside):
    """Pixels `first`… of gaps [L] along an axis, as [COUNT, L]: their places, shares and which exist."""
    start = tl.load(starts + gap, mask=inside, other=0)
    stop = tl.load(starts + gap + 1, mask=inside, other=0)
    at = start[None, :] + first + tl.arange(0, COUNT)[:, None]
    exist = at < stop[None, :]
    return at, _loaded(shares + at, exist, 0.0), exist


@triton.jit
def _slots(i, part, lane, lanes, PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, PIXELS_Y: tl.constexpr):
    """Where a map has the rows of one part of gaps `lane` of row i, in lengths of such a row, [PIXELS_Y, LANES]."""
    row = (i * PARTS_Y + part // PARTS_X) * PIXELS_Y + tl.arange(0, PIXELS_Y)
    return (row[:, None] * lanes + lane[None, :]) * PARTS_X + part % PARTS_X


@triton.jit
def _places(slots, lane, lanes, PIXELS_X: tl.constexpr):
    """The pixels of `slots` and which of them there are, [PIXELS_Y · LANES, PIXELS_X]: a row is one read of a thread.

    (Multiplied here, so that the compiler sees what they are multiples of.)
    """
    rows: tl.constexpr = slots.numel
    exist = tl.reshape(tl.broadcast_to((lane < lanes)[None, :], slots.shape), (rows,))
    return tl.reshape(slots, (rows,))[:, None] * PIXELS_X + tl.arange(0, PIXELS_X)[None, :], exist[:, None]


@triton.jit
def _of_map(map, slots, lane, lanes, other, PIXELS_X: tl.constexpr):
    """A map's numbers at `_slots`, as [PIXELS_Y, PIXELS_X, LANES]."""
    places, exist = _places(slots, lane, lanes, PIXELS_X)
    found = tl.load(map + places, mask=exist, other=other)
    return tl.permute(tl.reshape(found, (slots.shape[0], slots.shape[1], PIXELS_X)), (0, 2, 1))


@triton.jit
def _to_map(map, slots, lane, lanes, values, PIXELS_X: tl.constexpr):
    """The converse of `_of_map`."""
    places, exist = _places(slots, lane, lanes, PIXELS_X)
    tl.store(map + places, tl.reshape(tl.permute(values, (0, 2, 1)), places.shape), mask=exist)


@triton.jit
def _mix_of(cells, w, some, above, below, left, right, share_y, share_x):
    """The mixture at each pixel from `cells`, pointers to its lower right ones; 0 where not `some`."""
    return _mix(
        _loaded(cells - w - 1, some & above & left[None, None, :], 0.0),
        _loaded(cells - w, some & above & right[None, None, :], 0.0),
        _loaded(cells - 1, some & below & left[None, None, :], 0.0),
        _loaded(cells, some & below & right[None, None, :], 0.0),
        share_y, share_x,
    )  # fmt: skip


@triton.jit
def _entries(table, stride, row_of, first, LABELS: tl.constexpr):
    """LABELS entries from `first` on of the table's rows `row_of` [PY, PX, LANES], as [LABELS, PY, PX, LANES].

    They are read by fours, which the rows' padding allows, without a mask. Pixels near each other mostly share a row.
    """
    fours = tl.reshape(row_of, (row_of.numel,))[None, :] * (stride // 4) + tl.arange(0, LABELS // 4)[:, None]
    fours = tl.reshape(fours, (LABELS // 4 * row_of.numel,))[:, None] * 4
    entries = tl.load(table + first + (fours + tl.arange(0, 4)[None, :]))
    entries = tl.reshape(entries, (LABELS // 4, row_of.shape[0], row_of.shape[1], row_of.shape[2], 4))
    entries = tl.permute(entries, (0, 4, 1, 2, 3))
    return tl.reshape(entries, (LABELS, row_of.shape[0], row_of.shape[1], row_of.shape[2]))


@triton.jit
def _add_labels(
    most, total, mean, first, low, allowed, bias, corner, plane, image, inside, above, below, left, right,
    share_y, share_x, scale2, row_of, stride, start, count, w,
    ARE_ALL: tl.constexpr, IS_CALM: tl.constexpr, HAS_ALLOWED: tl.constexpr, HAS_TABLE: tl.constexpr,
    LABELS: tl.constexpr,
):  # fmt: skip
    """`_sums` with LABELS labels more, from `first` on; if not ARE_ALL, some of them do not exist."""
    label = first + tl.arange(0, LABELS)[:, None]
    if ARE_ALL:
        planes = tl.arange(0, LABELS)[:, None].to(tl.int64) * plane
        cells = low + first * plane.to(tl.int64) + (planes + corner[None, :])
    else:  # the last label is read for those beyond it, so that the masks stay the same
        cells = low + (tl.minimum(label, count - 1).to(tl.int64) * plane + corner[None, :])
    a = _loaded(cells - w - 1, above & left[None, :], 0.0)
    b = _loaded(cells - w, above & right[None, :], 0.0)
    c = _loaded(cells - 1, below & left[None, :], 0.0)
    d = _loaded(cells, below & right[None, :], 0.0)
    takes_part = (label < count) & inside[None, :]
    if HAS_ALLOWED:
        takes_part = _loaded(allowed + (image[None, :] * count + label), takes_part, 0) != 0
    if not HAS_TABLE and (HAS_ALLOWED or not ARE_ALL):  # a table's rows end with columns that do not take part
        a, b = tl.where(takes_part, a, FAR), tl.where(takes_part, b, FAR)
        c, d = tl.where(takes_part, c, FAR), tl.where(takes_part, d, FAR)
    raw = _mix(
        a[:, None, None, :], b[:, None, None, :], c[:, None, None, :], d[:, None, None, :],
        share_y[None, :, :, :], share_x[None, :, :, :],
    )  # fmt: skip
    if HAS_TABLE:
        shift = _entries(bias, stride, row_of, first, LABELS)
        if HAS_ALLOWED:
            shift = tl.where(takes_part[:, None, None, :], shift, NOTHING)
        if IS_CALM:
            z = raw * scale2[None, :, :, :] + (shift - start[None, :, :, :])
        else:
            z = raw * scale2[None, :, :, :] + shift
    elif IS_CALM:
        z = raw * scale2[None, :, :, :] - start[None, :, :, :]
    else:
        z = raw * scale2[None, :, :, :]
    if IS_CALM:
        weight = tl.exp2(z)
        return start, total + tl.sum(weight, 0), mean + tl.sum(weight * raw, 0)
    now = tl.maximum(most, tl.max(z, 0))
    weight = tl.exp2(z - now[None, :, :, :])
    fade = tl.exp2(most - now)
    return now, total * fade + tl.sum(weight, 0), mean * fade + tl.sum(weight * raw, 0)


@triton.jit
def _sums(
    low, allowed, bias, corner, plane, image, inside, above, below, left, right, share_y, share_x, scale2, row_of,
    stride, start, count, w,
    IS_CALM: tl.constexpr, HAS_ALLOWED: tl.constexpr, HAS_TABLE: tl.constexpr, LABELS: tl.constexpr,
):  # fmt: skip
    """Of all labels' logits z to base 2 at each pixel: `most`, Σ 2^(z - most) and Σ 2^(z - most) · (e · V).

    `most` is `start` where it is calm, else the largest that was met so far.
    """
    most = start
    if not IS_CALM:
        most = tl.full(start.shape, NOTHING, tl.float32)
    total = tl.zeros(start.shape, tl.float32)
    mean = tl.zeros(start.shape, tl.float32)
    whole = count // LABELS * LABELS
    for first in range(0, whole, LABELS):
        most, total, mean = _add_labels(
            most, total, mean, first, low, allowed, bias, corner, plane, image, inside, above, below, left, right,
            share_y, share_x, scale2, row_of, stride, start, count, w, True, IS_CALM, HAS_ALLOWED, HAS_TABLE, LABELS,
        )  # fmt: skip
    for first in range(whole, count, LABELS):  # once, if at all
        most, total, mean = _add_labels(
            most, total, mean, first, low, allowed, bias, corner, plane, image, inside, above, below, left, right,
            share_y, share_x, scale2, row_of, stride, start, count, w, False, IS_CALM, HAS_ALLOWED, HAS_TABLE, LABELS,
        )  # fmt: skip
    return most, total, mean


@triton.jit(
    do_not_specialize=["batch", "count", "h", "w", "height", "width", "ignore", "classes", "stride", "most_columns"]
)
def forward(
    low, products, tau, reach, targets, allowed, starts_y, shares_y, starts_x, shares_x,
    losses, scales, halves, lses, surpluses, chosen,
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
    lanes = batch * (w + 1)
    slots = _slots(i, part, lane, lanes, PARTS_Y, PARTS_X, PIXELS_Y)

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
    _to_map(scales, slots, lane, lanes, scale, PIXELS_X)
    _to_map(halves, slots, lane, lanes, tl.where(certain, 0.5 / square, 0.0), PIXELS_X)
    scale2 = scale * LOG2E  # logits are kept to base 2, the base of the hardware's exponential

    if HAS_TABLE:
        target = _loaded(targets + pixel, exist, 0).to(tl.int64)
        is_class = (target >= 0) & (target < classes)
        found = exist & (target != ignore) & is_class
        row_of = tl.where(is_class, target, 0)

    plane = h * w
    corner = image * count * plane + i * w + j
    # No logit is above the longest label's length over tau. Where that is little, no difference of two is too much for
    # 2^, and nobody need look for the largest: the own logit, or with a table that bound, takes its place.
    bound = tl.load(reach) / tl.load(tau) * LOG2E
    if HAS_TABLE:
        start = bound + tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
    else:
        row_of = None
        target = _loaded(targets + pixel, exist, 0).to(tl.int64)
        labelled = exist & (target != ignore)
        is_class = (target >= 0) & (target < count)
        found = labelled & is_class
        owns = low + corner[None, None, :] + tl.where(found, target, 0) * plane
        own = _mix_of(owns, w, found, above, below, left, right, share_y, share_x)
        start = own * scale2
    if bound <= CALM:
        most, total, mean = _sums(
            low, allowed, bias, corner, plane, image, inside, above, below, left, right, share_y, share_x, scale2,
            row_of, stride, start, count, w, True, HAS_ALLOWED, HAS_TABLE, LABELS,
        )  # fmt: skip
    else:
        most, total, mean = _sums(
            low, allowed, bias, corner, plane, image, inside, above, below, left, right, share_y, share_x, scale2,
            row_of, stride, start, count, w, False, HAS_ALLOWED, HAS_TABLE, LABELS,
        )  # fmt: skip

    _to_map(chosen, slots, lane, lanes, tl.where(found, target, -1).to(tl.int32), PIXELS_X)

    if HAS_TABLE:
        # What competes is done, and makes way for the positives.
        neg = tl.maximum(most + tl.log2(total), NOTHING)
        neg_mean = mean / tl.where(total > 0, total, 1.0)
        most = tl.full([PIXELS_Y, PIXELS_X, LANES], NOTHING, tl.float32)
        total = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        mean = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        asked = tl.zeros([PIXELS_Y, PIXELS_X, LANES], tl.float32)
        lost = row_of < 0  # none
        own_count = _loaded(counts + row_of, found, 0)
        for k in range(0, tl.max(tl.max(tl.max(own_count, 2), 1), 0)):
            one = k < own_count
            column = _loaded(columns + (row_of * most_columns + k), one, 0)
            owns = low + corner[None, None, :] + column * plane
            raw_own = _mix_of(owns, w, one, above, below, left, right, share_y, share_x)
            if wanted is not None:
                share = _loaded(wanted + (row_of * stride + column), one, 0.0)
                asked += share * raw_own
            if HAS_ALLOWED and EVERYWHERE:
                may = _loaded(allowed + (image[None, None, :] * count + column), one, 0) != 0
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
        _stored(losses + pixel, tl.where(exist & (target != ignore), loss, 0.0), exist)
        _to_map(lses, slots, lane, lanes, tl.where(found, tl.maximum(lse, FLOOR), NOWHERE), PIXELS_X)
        # So that exp(z - pull) is a positive's share of them, exp(z - pos), times the probability of the others.
        _to_map(pulls, slots, lane, lanes, tl.where(found, pos - neg + lse, NOWHERE), PIXELS_X)
        _to_map(surpluses, slots, lane, lanes, surplus * (scale2 * LN2), PIXELS_X)
    else:
        more = tl.log2(total)
        loss = (most - start + more) * LN2
        if HAS_ALLOWED:
            may = _loaded(allowed + (image[None, None, :] * count + target), found, 1) != 0
            loss = tl.where(may, loss, float("inf"))
        loss = tl.where(is_class, loss, float("nan"))
        _stored(losses + pixel, tl.where(labelled, loss, 0.0), exist)
        _to_map(lses, slots, lane, lanes, most + more, PIXELS_X)
        _to_map(surpluses, slots, lane, lanes, (mean / total - own) * (scale2 * LN2), PIXELS_X)
