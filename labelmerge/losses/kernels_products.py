"""Inner products of neighbouring embeddings, of which |V|² is made, and their gradients."""
# Triton's language has no types that mypy knows.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


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
def _neighbour(
    v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, DY: tl.constexpr, DX: tl.constexpr
):
    """Of cells, the gradients of the products with one of their neighbours, where it is, and which have it."""
    image, y, x = cell // (h * w), cell // w % h, cell % w
    there = (cell < cells) & (x + DX >= 0) & (x + DX < w) & (y + DY >= 0) & (y + DY < h)
    # A product belongs to its upper cell on the left: the pair's smaller row and column.
    kind: tl.constexpr = (1 if DX != 0 else 0) + (2 if DY != 0 else 0)
    owner = ((image * 4 + kind) * h + y + min(DY, 0)) * w + x + min(DX, 0)
    weight = tl.load(grad_products + owner, mask=there, other=0.0) * (2.0 if kind == 0 else (0.5 if kind == 3 else 1.0))
    place = image * stride_image + (y + DY) * stride_y + (x + DX) * stride_x
    return weight[None, :], (v + place)[None, :], there[None, :]


@triton.jit
def products_backward(
    v, grad_products, onto, out,
    stride_image, stride_channel, stride_y, stride_x, onto_image, onto_channel, onto_y, onto_x,
    cells, channels, h, w, CHANNELS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """out = onto + each cell's neighbours, weighted by the gradients of the products with them."""
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    image, y, x = cell // (h * w), cell // w % h, cell % w
    here = (image * onto_image + y * onto_y + x * onto_x)[None, :]
    wa, a, has_a = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, -1, -1)
    wb, b, has_b = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, -1, 0)
    wc, c, has_c = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, -1, 1)
    wd, d, has_d = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 0, -1)
    we, e, has_e = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 0, 0)
    wf, f, has_f = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 0, 1)
    wg, g, has_g = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 1, -1)
    wh, i, has_i = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 1, 0)
    wi, j, has_j = _neighbour(v, grad_products, cell, cells, h, w, stride_image, stride_y, stride_x, 1, 1)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[:, None]
        is_channel = channel < channels
        some = is_channel & (cell < cells)[None, :]
        at, place = channel.to(tl.int64) * stride_channel, here + channel.to(tl.int64) * onto_channel
        grad = tl.load(onto + place, mask=some, other=0.0).to(tl.float32)
        grad += wa * tl.load(a + at, mask=is_channel & has_a, other=0.0).to(tl.float32)
        grad += wb * tl.load(b + at, mask=is_channel & has_b, other=0.0).to(tl.float32)
        grad += wc * tl.load(c + at, mask=is_channel & has_c, other=0.0).to(tl.float32)
        grad += wd * tl.load(d + at, mask=is_channel & has_d, other=0.0).to(tl.float32)
        grad += we * tl.load(e + at, mask=is_channel & has_e, other=0.0).to(tl.float32)
        grad += wf * tl.load(f + at, mask=is_channel & has_f, other=0.0).to(tl.float32)
        grad += wg * tl.load(g + at, mask=is_channel & has_g, other=0.0).to(tl.float32)
        grad += wh * tl.load(i + at, mask=is_channel & has_i, other=0.0).to(tl.float32)
        grad += wi * tl.load(j + at, mask=is_channel & has_j, other=0.0).to(tl.float32)
        tl.store(out + place, grad, mask=some)
