"""Images with the statistics of photographs, for tests and measurements that must not depend on any download."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw


def photograph(height: int, width: int, seed: int = 0, noise: float = 1.0) -> npt.NDArray[np.uint8]:
    """Edges, surfaces and fine grain: a picture whose spectrum falls like 1/f, as that of photographs does.

    Args:
        noise: standard deviation of a sensor's grain, in grey levels.

    Returns:
        uint8 ``[height, width, 3]``, RGB.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width)) ** 1.3
    planes = []
    for _ in range(3):
        plane = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), (height, width))
        planes.append((plane - plane.mean()) / plane.std())
    light = 120 + 45 * planes[0][..., None] + 12 * np.stack(planes, axis=2)
    image = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    for points in _shapes(rng, height, width, 40):
        shape = Image.new("L", (width, height))
        ImageDraw.Draw(shape).polygon(points, fill=110)
        image.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=shape)
    grain = rng.normal(0, noise, (height, width, 1))
    return np.asarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def label_mask(height: int, width: int, classes: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A class mask of some dozens of regions, as annotators draw them: uint8 ``[height, width]``."""
    rng = np.random.default_rng(seed)
    mask = Image.new("L", (width, height), 0)
    for points in _shapes(rng, height, width, 60):
        ImageDraw.Draw(mask).polygon(points, fill=int(rng.integers(0, classes)))
    return np.asarray(mask)


def jpeg(image: npt.NDArray[np.uint8], **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", **options)
    return out.getvalue()


def _shapes(rng: np.random.Generator, height: int, width: int, count: int) -> list[list[tuple[float, float]]]:
    shapes = []
    for _ in range(count):
        x, y, radius = rng.random() * width, rng.random() * height, rng.random() * height * 0.15
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = radius * rng.uniform(0.5, 1, len(angles))
        corners = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1).tolist()
        shapes.append([(float(x), float(y)) for x, y in corners])
    return shapes
