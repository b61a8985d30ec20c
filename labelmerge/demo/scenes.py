"""Scenes: ground, background and things in front of each other, painted as an image and as a map of concepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelmerge.demo.concepts import SHAPE_TRAITS, Floats, Look, concepts
from labelmerge.demo.shapes import DARK, FIRST, LIGHT, SECOND, SHAPES, Part

NOTHING = -1
"""The value of a concept map where no concept is (nowhere, in a finished scene) and of a thing map likewise."""

_OVERSAMPLING = 2  # images are painted at twice the size and averaged down: soft edges, as a camera's
_TEXTURE_PIXELS = 6.0  # size of one texture element at scale 0, in pixels of the image
_NOISE_TILE = 128
_FILLS = (FIRST, SECOND, DARK, LIGHT)
_CONTRAST = 0.12  # how much lighter or darker than its colour a texture makes a thing


@dataclass(frozen=True)
class Thing:
    """One thing (or one stretch of ground or background) as painted.

    Attributes:
        concept: a leaf of the concept tree.
        parts: polygons in pixels of the image, y downwards, rounded to 0.01.
        first, second: its two colours, [3] in 0..1.
        phase: where in the texture it begins, [2] in pixels.
        countable: an object rather than a stretch of stuff.
    """

    concept: str
    parts: tuple[Part, ...]
    first: Floats
    second: Floats
    phase: Floats
    countable: bool


@dataclass
class Scene:
    """Things in painting order, later over earlier, on `width` x `height` pixels; `horizon`: a share of the height."""

    width: int
    height: int
    things: list[Thing] = field(default_factory=list)
    horizon: float = 0.0

    def thing_map(self) -> npt.NDArray[np.int32]:
        """[height, width]: which thing (its place in `things`) is seen at each pixel, `NOTHING` where none."""
        canvas = Image.new("I", (self.width, self.height), NOTHING)
        draw = ImageDraw.Draw(canvas)
        for number, thing in enumerate(self.things):
            for part in thing.parts:
                draw.polygon([tuple(point) for point in part.points.tolist()], fill=number)
        return np.asarray(canvas, dtype=np.int32)


class Painter:
    """Composes scenes out of one world's looks.

    Args:
        looks: of the world's concepts.
        allowed: how often each leaf is drawn relative to others of its place in the scene; absent means never.
        zoom: how large things are: 1 is a person of 0.7 of the image's height at its lower border.
    """

    def __init__(self, looks: Mapping[str, Look], allowed: Mapping[str, float], zoom: float) -> None:
        self.looks, self.allowed, self.zoom = looks, allowed, zoom

    def scene(self, kind: str, width: int, height: int, rng: np.random.Generator) -> Scene:
        """A new scene of one of the `SCENES`."""
        scene = Scene(width, height)
        composition = _Composition(self, scene, rng)
        SCENES[kind](composition)
        scene.horizon = composition.horizon
        return scene


class _Composition:
    """One scene being composed; coordinates are shares of the width and of the height, y downwards."""

    def __init__(self, painter: Painter, scene: Scene, rng: np.random.Generator) -> None:
        self.painter, self.scene, self.rng = painter, scene, rng
        self.horizon = 0.0

    def choose(self, *kinds: str) -> str | None:
        """One of the kinds, by how often they are allowed; None where none is."""
        weights = np.array([self.painter.allowed.get(kind, 0.0) for kind in kinds])
        return None if weights.sum() == 0 else str(self.rng.choice(kinds, p=weights / weights.sum()))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def stuff(self, kind: str | None, *points: tuple[float, float]) -> None:
        """A stretch of ground or background with these corners."""
        if kind is not None:
            scale = np.array([self.scene.width, self.scene.height])
            self._add(kind, [Part(np.array(points) * scale)], countable=False)

    def band(self, kind: str | None, top: float, bottom: float, slope: float = 0.0) -> None:
        self.stuff(kind, (-0.02, top - slope), (1.02, top + slope), (1.02, bottom + 0.02), (-0.02, bottom + 0.02))

    def metre(self, y: float) -> float:
        """How many pixels a metre is for a thing that stands at `y`."""
        near = max(y - self.horizon, 0.04) / (1.0 - self.horizon)
        return self.scene.height * 0.40 * self.painter.zoom * near

    def thing(self, kind: str | None, x: float, y: float, metre: float | None = None, lift: float = 0.0) -> None:
        """A thing standing at (x, y), raised by `lift` metres; its size by the distance, or `metre` pixels a metre."""
        if kind is None:
            return
        concept, look = concepts()[kind], self.painter.looks[kind]
        metre = metre or self.metre(y)
        high = concept.height * metre * float(np.exp(self.rng.normal(0, 0.10)))
        wide = max(high * concept.aspect * float(np.exp(0.08 * look.shape[5] + self.rng.normal(0, 0.08))), 1.6)
        flip = -1.0 if self.chance(0.5) else 1.0
        traits = look.shape + self.rng.normal(0, 0.15, SHAPE_TRAITS)
        foot = np.array([x * self.scene.width, y * self.scene.height - lift * metre])
        parts = [
            Part(foot + part.points * np.array([wide * flip, -high]), part.fill)
            for part in SHAPES[concept.shape](traits, self.rng)
        ]
        self._add(kind, parts, countable=True)

    def _add(self, kind: str, parts: list[Part], countable: bool) -> None:
        look, variety = self.painter.looks[kind], concepts()[kind].variety
        own = replace(
            look,
            hue=look.hue + self.rng.normal(0, 2 + 18 * variety),
            saturation=look.saturation + self.rng.normal(0, 0.02 + 0.07 * variety),
            value=look.value + self.rng.normal(0, 0.02 + 0.07 * variety),
        )
        rounded = tuple(Part(np.round(part.points, 2), part.fill) for part in parts)
        phase = self.rng.uniform(0, _NOISE_TILE, 2)
        self.scene.things.append(Thing(kind, rounded, own.rgb(), own.second_rgb(), phase, countable))


_BUILDINGS = ("house", "skyscraper", "cottage")
_QUADRUPEDS = ("dog", "wolf", "horse", "cow", "sheep")
_BIRDS = ("pigeon", "heron")
_RODENTS = ("mouse", "rat")
_MOTORS = ("car", "truck", "bus", "tractor", "coach")


def _skyline(c: _Composition, base: float, metre: float) -> None:
    """Buildings and trees along the horizon, with gaps."""
    x = c.rng.uniform(-0.1, 0.1)
    while x < 1.05:
        kind = c.choose(*_BUILDINGS) if c.chance(0.6) else c.choose("tree")
        if kind is not None and c.chance(0.85):
            width = concepts()[kind].height * concepts()[kind].aspect * metre / c.scene.width
            c.thing(kind, x + width / 2, base + c.rng.uniform(-0.01, 0.02), metre)
            x += width * c.rng.uniform(0.8, 1.1)
        else:
            x += c.rng.uniform(0.08, 0.2)


def _rider(c: _Composition, x: float, y: float) -> None:
    """A rider on a cycle, each its own thing."""
    c.thing(c.choose("bicycle", "motorcycle"), x, y)
    c.thing(c.choose("rider"), x, y, lift=0.42)


def _sign(c: _Composition, x: float, y: float) -> None:
    c.thing(c.choose("pole"), x, y)
    if c.chance(0.75):
        c.thing(c.choose("sign"), x, y, lift=2.4)


def _crowd(c: _Composition, how: list[tuple[float, Callable[[float, float], None]]], top: float) -> None:
    """Things on the ground from `top` to the lower border, far ones first; `how` gives mean count and what to draw."""
    places = [(c.rng.uniform(top, 0.99), draw) for mean, draw in how for _ in range(c.rng.poisson(mean))]
    for y, draw in sorted(places, key=lambda place: place[0]):
        draw(c.rng.uniform(0.04, 0.96), y)


def _street(c: _Composition) -> None:
    c.horizon = c.rng.uniform(0.34, 0.44)
    c.band(c.choose("sky"), 0.0, c.horizon + 0.1)
    edge = c.horizon + c.rng.uniform(0.06, 0.10)
    _skyline(c, edge, c.scene.height * c.rng.uniform(0.07, 0.10))
    verge = c.choose("grass", "earth") if c.chance(0.6) else None
    c.band(verge or c.choose("sidewalk"), edge, 1.0)
    if c.chance(0.5):
        c.thing(c.choose("fence", "garden_wall", "hedge"), c.rng.uniform(0.1, 0.9), edge + 0.03, c.scene.height * 0.13)
    if c.chance(0.5):  # looking along the street
        vanish, left, right = c.rng.uniform(0.3, 0.7), c.rng.uniform(-0.5, -0.1), c.rng.uniform(1.1, 1.5)
        pavement = 0.35
        c.stuff(
            c.choose("sidewalk"),
            (vanish - 0.10, edge),
            (vanish + 0.10, edge),
            (right + pavement, 1.02),
            (left - pavement, 1.02),
        )
        c.stuff(c.choose("road"), (vanish - 0.05, edge), (vanish + 0.05, edge), (right, 1.02), (left, 1.02))
    else:  # across it
        slope = c.rng.uniform(-0.03, 0.03)
        kerb = edge + c.rng.uniform(0.10, 0.2)
        c.band(c.choose("sidewalk"), kerb - c.rng.uniform(0.05, 0.09), 1.0, slope)
        far = c.rng.uniform(0.86, 1.1)
        c.band(c.choose("road"), kerb, min(far, 1.0), slope)
        if far < 1.0:
            c.band(c.choose("sidewalk"), far, 1.0, slope)
    _crowd(
        c,
        [
            (1.8, lambda x, y: c.thing(c.choose(*_MOTORS), x, min(y, 0.85), c.metre(min(y, 0.85)) * 0.7)),
            (1.0, lambda x, y: c.thing(c.choose("pedestrian"), x, y)),
            (0.7, lambda x, y: _rider(c, x, y)),
            (0.3, lambda x, y: c.thing(c.choose("bicycle", "motorcycle"), x, y)),
            (0.8, lambda x, y: _sign(c, x, y)),
            (0.5, lambda x, y: c.thing(c.choose(*_QUADRUPEDS), x, y)),
            (0.4, lambda x, y: c.thing(c.choose(*_BIRDS), x, y)),
        ],
        edge + 0.10,
    )


def _field(c: _Composition) -> None:
    c.horizon = c.rng.uniform(0.26, 0.40)
    c.band(c.choose("sky"), 0.0, c.horizon + 0.1)
    edge = c.horizon + c.rng.uniform(0.04, 0.08)
    slope = c.rng.uniform(-0.03, 0.03)
    if c.chance(0.6):
        _skyline(c, edge + 0.03, c.scene.height * c.rng.uniform(0.07, 0.11))
    c.band(c.choose("grass", "earth") if c.chance(0.3) else c.choose("grass"), edge, 1.0, slope)
    if c.chance(0.5):
        c.thing(c.choose("hedge", "fence", "garden_wall"), c.rng.uniform(0.1, 0.9), edge + 0.05, c.scene.height * 0.16)
    if c.chance(0.55):
        low, bend = c.rng.uniform(0.0, 0.7), c.rng.uniform(0.1, 0.9)
        way = c.choose("earth", "road")
        c.stuff(way, (bend, edge + 0.02), (bend + 0.06, edge + 0.02), (low + 0.5, 1.02), (low, 1.02))
    _crowd(
        c,
        [
            (1.8, lambda x, y: c.thing(c.choose(*_QUADRUPEDS), x, y)),
            (1.0, lambda x, y: c.thing(c.choose(*_BIRDS), x, y, c.metre(y) * 1.5)),
            (0.9, lambda x, y: c.thing(c.choose(*_RODENTS), x, y, c.metre(y) * 1.7)),
            (0.7, lambda x, y: c.thing(c.choose("pedestrian"), x, y)),
            (0.5, lambda x, y: c.thing(c.choose("tree"), x, y, c.metre(y) * 0.8)),
            (0.5, lambda x, y: c.thing(c.choose(*_MOTORS), x, min(y, 0.85), c.metre(min(y, 0.85)) * 0.7)),
            (0.3, lambda x, y: c.thing(c.choose("hedge", "fence"), x, y, c.metre(y) * 0.8)),
            (0.2, lambda x, y: _rider(c, x, y)),
        ],
        edge + 0.16,
    )


def _room(c: _Composition) -> None:
    c.horizon = 0.10
    edge = c.rng.uniform(0.50, 0.62)
    c.band(c.choose("interior_wall"), 0.0, 1.0)
    c.band(c.choose("floor"), edge, 1.0)
    x = c.rng.uniform(0.05, 0.2)
    back = c.scene.height * 0.27 * c.painter.zoom
    while x < 1.0:
        kind = c.choose("cabinet", "kitchen_counter", "bed", "sofa", "screen")
        lift = 0.6 if kind == "screen" else 0.0
        c.thing(kind, x, edge + c.rng.uniform(0.02, 0.06), back, lift)
        x += c.rng.uniform(0.35, 0.6)
    _crowd(
        c,
        [
            (1.0, lambda x, y: c.thing(c.choose("chair"), x, y)),
            (0.8, lambda x, y: c.thing(c.choose("table"), x, y)),
            (0.6, lambda x, y: c.thing(c.choose("shop_counter", "kitchen_counter"), x, y)),
            (0.6, lambda x, y: c.thing(c.choose("sofa", "bed"), x, y)),
            (0.6, lambda x, y: c.thing(c.choose("pedestrian"), x, y, c.metre(y) * 0.85)),
            (0.3, lambda x, y: c.thing(c.choose("dog"), x, y)),
            (0.5, lambda x, y: c.thing(c.choose(*_RODENTS), x, y, c.metre(y) * 1.4)),
        ],
        edge + 0.10,
    )


def _desk(c: _Composition) -> None:
    """A desk from near by: the table fills the lower half, with a screen, a keyboard and a mouse on it."""
    edge = c.rng.uniform(0.48, 0.60)
    c.band(c.choose("interior_wall"), 0.0, 1.0)
    c.band(c.choose("table"), edge, 1.0, c.rng.uniform(-0.02, 0.02))
    metre = c.scene.height * 0.55
    c.thing(c.choose("screen"), c.rng.uniform(0.3, 0.7), edge + 0.08, metre * c.rng.uniform(0.9, 1.2))
    x = c.rng.uniform(0.25, 0.6)
    y = c.rng.uniform(0.76, 0.92)
    c.thing(c.choose("keyboard"), x, y, metre * c.rng.uniform(0.8, 1.0))
    c.thing(c.choose("computer_mouse"), min(x + c.rng.uniform(0.28, 0.38), 0.95), y, metre * c.rng.uniform(0.9, 1.2))


def _shop(c: _Composition) -> None:
    c.horizon = 0.05
    edge = c.rng.uniform(0.55, 0.65)
    c.band(c.choose("interior_wall"), 0.0, 1.0)
    c.band(c.choose("floor"), edge, 1.0)
    if c.chance(0.7):
        c.thing(c.choose("cabinet"), c.rng.uniform(0.1, 0.9), edge + 0.02, c.scene.height * 0.25)
    if c.chance(0.8):
        c.thing(c.choose("pedestrian"), c.rng.uniform(0.2, 0.8), edge + 0.08, c.scene.height * 0.27)
    c.thing(
        c.choose("shop_counter"), c.rng.uniform(0.25, 0.75), edge + c.rng.uniform(0.10, 0.20), c.scene.height * 0.32
    )
    _crowd(
        c,
        [
            (0.9, lambda x, y: c.thing(c.choose("chair"), x, y, c.metre(y) * 0.9)),
            (0.7, lambda x, y: c.thing(c.choose("pedestrian"), x, y, c.metre(y) * 0.8)),
            (0.7, lambda x, y: c.thing(c.choose(*_RODENTS), x, y, c.metre(y) * 1.3)),
        ],
        edge + 0.22,
    )


SCENES: dict[str, Callable[[_Composition], None]] = {
    "street": _street,
    "field": _field,
    "room": _room,
    "desk": _desk,
    "shop": _shop,
}


def paint(scene: Scene, looks: Mapping[str, Look], noise: Floats) -> Floats:
    """The scene as an image [height, width, 3] in 0..1, before any camera.

    Args:
        scene: what to paint.
        looks: of the world's concepts, for the textures.
        noise: a tile from `noise_tile`, the grain of the world's textures.
    """
    height, width = scene.height * _OVERSAMPLING, scene.width * _OVERSAMPLING
    image = np.full((height, width, 3), 0.5, dtype=np.float32)
    for thing in scene.things:
        points = np.concatenate([part.points for part in thing.parts]) * _OVERSAMPLING
        x0, y0 = (max(int(low), 0) for low in np.floor(points.min(axis=0)))
        x1, y1 = (min(int(up) + 1, end) for up, end in zip(np.ceil(points.max(axis=0)), (width, height), strict=True))
        if x0 >= x1 or y0 >= y1:
            continue
        canvas = Image.new("L", (x1 - x0, y1 - y0))
        draw = ImageDraw.Draw(canvas)
        for part in thing.parts:
            outline = part.points * _OVERSAMPLING - (x0, y0)
            draw.polygon([tuple(point) for point in outline.tolist()], fill=_FILLS.index(part.fill) + 1)
        fills = np.asarray(canvas)
        # Tyres, hair and openings, windows, lamps and faces are much the same on every kind.
        colours = np.stack([thing.first, thing.second, 0.12 + 0.15 * thing.first, 0.72 + 0.22 * thing.first])
        painted = colours.astype(np.float32)[np.maximum(fills, 1) - 1]
        shade = _shade(thing, looks[thing.concept], noise, (x0, y0, x1, y1))
        painted += np.where(fills <= _FILLS.index(SECOND) + 1, shade, np.float32(0))[:, :, None]
        np.copyto(image[y0:y1, x0:x1], painted, where=(fills > 0)[:, :, None])
    np.clip(image, 0, 1, out=image)
    fine = image.reshape(scene.height, _OVERSAMPLING, scene.width, _OVERSAMPLING, 3)
    smooth: Floats = fine.mean(axis=(1, 3), dtype=np.float64)
    return smooth


def _shade(thing: Thing, look: Look, noise: Floats, seen: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
    """The brightness that texture and light add to a thing at each pixel of its box [y1 - y0, x1 - x0]."""
    x0, y0, x1, y1 = seen
    px, py = thing.phase.tolist()
    y, x = np.arange(y0, y1, dtype=np.float32)[:, None], np.arange(x0, x1, dtype=np.float32)[None, :]
    size = _TEXTURE_PIXELS * _OVERSAMPLING * 2.0**look.scale
    cos, sin = float(np.cos(look.angle)), float(np.sin(look.angle))
    u = ((x + px) * cos + (y + py) * sin) / size
    v = ((y + py) * cos - (x + px) * sin) / size
    row = np.floor(v)
    step = 2.0**-look.scale
    down, along = ((y * step + py).astype(int), (x * step + px).astype(int))
    patterns = (
        np.zeros(1),
        np.sin(2 * np.pi * u),
        1.5 * np.sin(1.2 * np.pi * u) * np.sin(1.2 * np.pi * v),
        np.where((v - row < 0.25) | ((u * 0.5 + 0.5 * (row % 2)) % 1.0 < 0.12), -1.0, 0.35),
        0.8 * noise[down % _NOISE_TILE, along % _NOISE_TILE],
    )
    texture = sum(float(share) * pattern for share, pattern in zip(look.weights(), patterns, strict=True))
    light = 0.06 - 0.12 * (y - y0) / max(y1 - y0, 1)
    shade: npt.NDArray[np.float32] = (_CONTRAST * texture + light).astype(np.float32)
    return shade


def noise_tile(rng: np.random.Generator) -> Floats:
    """A tile [128, 128] of smooth noise that repeats without a seam: standard deviation 1."""
    spectrum = np.fft.rfft2(rng.normal(size=(_NOISE_TILE, _NOISE_TILE)))
    fy = np.fft.fftfreq(_NOISE_TILE)[:, None]
    fx = np.fft.rfftfreq(_NOISE_TILE)[None, :]
    tile = np.fft.irfft2(spectrum * np.exp(-((fy**2 + fx**2) / 0.02)), s=(_NOISE_TILE, _NOISE_TILE))
    out: Floats = (tile - tile.mean()) / tile.std()
    return out
