"""The Triton kernels of `labelmerge.model.depthwise`. Maps are [B, height, width, channels].

A program walks down ROWS rows of PIXELS columns and CHANNELS channels: each row is read once (and its neighbours to the
left and right) and takes part in three rows of the result.
"""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(height, width, channels, ROWS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """The program's first row, columns [PIXELS, 1], channels [1, CHANNELS], and where they are in row 0."""
    across, down = (width + PIXELS - 1) // PIXELS, (height + ROWS - 1) // ROWS
    block = tl.program_id(0)
    column = (block % across * PIXELS + tl.arange(0, PIXELS))[:, None]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    image = (block // across // down).to(tl.int64)
    return block // across % down * ROWS, column, channel, (image * height * width + column) * channels + channel


@triton.jit
def _three(x, at, row, column, is_channel, height, width, channels):
    """A row's pixels, and those on their left and on their right; 0 beyond the border."""
    here = x + at + row.to(tl.int64) * width * channels
    there = is_channel & (row >= 0) & (row < height) & (column < width)
    left = tl.load(here - channels, mask=there & (column > 0), other=0.0).to(tl.float32)
    middle = tl.load(here, mask=there, other=0.0).to(tl.float32)
    right = tl.load(here + channels, mask=there & (column + 1 < width), other=0.0).to(tl.float32)
    return left, middle, right


@triton.jit
def _weights(weight, row, channel, is_channel, channels):
    """Three of the nine weights of each channel."""
    here = weight + row * 3 * channels + channel
    return (
        tl.load(here, mask=is_channel, other=0.0),
        tl.load(here + channels, mask=is_channel, other=0.0),
        tl.load(here + 2 * channels, mask=is_channel, other=0.0),
    )


@triton.jit(do_not_specialize=["height", "width"])
def convolve(
    x, weight, bias, out, height, width, channels,
    HAS_GELU: tl.constexpr, ROWS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The 3 × 3 convolution of every channel by itself, weights [9, channels]; then, if asked for, bias and GELU."""
    first, column, channel, at = _place(height, width, channels, ROWS, PIXELS, CHANNELS)
    is_channel = channel < channels
    w0, w1, w2 = _weights(weight, 0, channel, is_channel, channels)
    w3, w4, w5 = _weights(weight, 1, channel, is_channel, channels)
    w6, w7, w8 = _weights(weight, 2, channel, is_channel, channels)
    shift = tl.zeros([1, CHANNELS], tl.float32)
    if HAS_GELU:
        shift = tl.load(bias + channel, mask=is_channel, other=0.0)
    a, b, c = _three(x, at, first - 1, column, is_channel, height, width, channels)
    this = a * w0 + b * w1 + c * w2
    a, b, c = _three(x, at, first, column, is_channel, height, width, channels)
    this += a * w3 + b * w4 + c * w5
    after = a * w0 + b * w1 + c * w2
    for step in range(ROWS):
        row = first + step
        a, b, c = _three(x, at, row + 1, column, is_channel, height, width, channels)
        total = this + a * w6 + b * w7 + c * w8
        this = after + a * w3 + b * w4 + c * w5
        after = a * w0 + b * w1 + c * w2
        if HAS_GELU:
            total += shift
            total = 0.5 * total * (1.0 + tl.math.erf(total * 0.7071067811865476))
        mask = is_channel & (row < height) & (column < width)
        tl.store(out + at + row.to(tl.int64) * width * channels, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width"])
def backward(
    x, weight, bias, grad, before, sums, height, width, channels,
    ROWS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """From the gradient of GELU's result that of the convolution's (`before`), and the program's part of weights' sums.

    The convolution is done again rather than kept. `sums` [programs, 10, channels] are of nine weights and the bias.
    """
    first, column, channel, at = _place(height, width, channels, ROWS, PIXELS, CHANNELS)
    is_channel = channel < channels
    w0, w1, w2 = _weights(weight, 0, channel, is_channel, channels)
    w3, w4, w5 = _weights(weight, 1, channel, is_channel, channels)
    w6, w7, w8 = _weights(weight, 2, channel, is_channel, channels)
    shift = tl.load(bias + channel, mask=is_channel, other=0.0)
    s0 = tl.zeros([PIXELS, CHANNELS], tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8, s9 = s0, s0, s0, s0, s0, s0, s0, s0, s0
    x0, x1, x2 = _three(x, at, first - 1, column, is_channel, height, width, channels)
    x3, x4, x5 = _three(x, at, first, column, is_channel, height, width, channels)
    for step in range(ROWS):
        row = first + step
        x6, x7, x8 = _three(x, at, row + 1, column, is_channel, height, width, channels)
        u = shift + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3 + x4 * w4 + x5 * w5 + x6 * w6 + x7 * w7 + x8 * w8
        slope = 0.5 + 0.5 * tl.math.erf(u * 0.7071067811865476) + u * 0.3989422804014327 * tl.exp(-0.5 * u * u)
        mask = is_channel & (row < height) & (column < width)
        place = at + row.to(tl.int64) * width * channels
        here = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32) * slope
        tl.store(before + place, here.to(before.dtype.element_ty), mask=mask)
        s0 += here * x0
        s1 += here * x1
        s2 += here * x2
        s3 += here * x3
        s4 += here * x4
        s5 += here * x5
        s6 += here * x6
        s7 += here * x7
        s8 += here * x8
        s9 += here
        x0, x1, x2, x3, x4, x5 = x3, x4, x5, x6, x7, x8
    out = sums + tl.program_id(0).to(tl.int64) * 10 * channels + channel
    tl.store(out, tl.sum(s0, 0)[None, :], mask=is_channel)
    tl.store(out + channels, tl.sum(s1, 0)[None, :], mask=is_channel)
    tl.store(out + 2 * channels, tl.sum(s2, 0)[None, :], mask=is_channel)
    tl.store(out + 3 * channels, tl.sum(s3, 0)[None, :], mask=is_channel)
    tl.store(out + 4 * channels, tl.sum(s4, 0)[None, :], mask=is_channel)
    tl.store(out + 5 * channels, tl.sum(s5, 0)[None, :], mask=is_channel)
    tl.store(out + 6 * channels, tl.sum(s6, 0)[None, :], mask=is_channel)
    tl.store(out + 7 * channels, tl.sum(s7, 0)[None, :], mask=is_channel)
    tl.store(out + 8 * channels, tl.sum(s8, 0)[None, :], mask=is_channel)
    tl.store(out + 9 * channels, tl.sum(s9, 0)[None, :], mask=is_channel)
