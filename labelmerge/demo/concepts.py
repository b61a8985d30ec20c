"""The generative model of looks: a tree of concepts that pass their looks on, with random variation at every level.

It knows no label and no text: labels are attached to concepts afterwards, in `taxonomies.toml`. A new seed gives a new
world, in which each kind looks different from before, but like its relatives.
"""

from __future__ import annotations

import colorsys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TEXTURES = ("smooth", "stripes", "spots", "bricks", "grain")
SHAPE_TRAITS = 6

# Standard deviation of the random variation of a broad kind's look, and of a leaf's: a wolf differs from a dog
# less than canines differ from cattle.
_CHANCE_KIND = {
    "hue": 16.0,
    "saturation": 0.08,
    "value": 0.07,
    "texture": 0.8,
    "scale": 0.3,
    "angle": 0.5,
    "shape": 0.6,
}
_CHANCE_LEAF = {"hue": 8.0, "saturation": 0.05, "value": 0.05, "texture": 0.5, "scale": 0.2, "angle": 0.4, "shape": 0.6}
# Two children of one parent must differ by this much, or nobody could tell them apart; drawn again until they do.
_LEAST_DIFFERENCE = 0.3
_MAX_DRAWS = 50


@dataclass(frozen=True)
class Look:
    """How a kind looks.

    Attributes:
        hue: degrees. saturation, value: 0..1, as in HSV.
        second_hue: degrees added to the hue for the second colour; second_value: likewise added to the value.
        texture: one weight per name in `TEXTURES`, before a softmax.
        scale: logarithm (base 2) of the texture's size relative to 6 pixels.
        angle: direction of the texture in radians.
        shape: traits that the outlines of `shapes` read: length of legs, of the body, size of the head …
    """

    hue: float
    saturation: float
    value: float
    second_hue: float
    second_value: float
    texture: Floats
    scale: float
    angle: float
    shape: Floats

    def rgb(self) -> Floats:
        """The first colour: [3] in 0..1."""
        return _rgb(self.hue, self.saturation, self.value)

    def second_rgb(self) -> Floats:
        """The second colour, of texture and parts: [3] in 0..1."""
        return _rgb(self.hue + self.second_hue, self.saturation, self.value + self.second_value)

    def weights(self) -> Floats:
        """The share of each texture: [5], sum 1."""
        weights: Floats = np.exp(self.texture - self.texture.max())
        weights /= weights.sum()
        return weights

    def difference(self, other: Look) -> float:
        """How unlike two looks are: about 1 for clearly different, in units of what an eye sees."""
        colour = float(np.linalg.norm(self.rgb() - other.rgb())) / 0.25
        second = float(np.linalg.norm(self.second_rgb() - other.second_rgb())) / 0.5
        texture = float(np.abs(self.weights() - other.weights()).sum()) / 1.5
        shape = float(np.linalg.norm(self.shape - other.shape)) / 6.0
        return float(np.sqrt(colour**2 + second**2 + texture**2 + shape**2))


def _rgb(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue / 360.0 % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.05), 0.97)))


@dataclass(frozen=True)
class Concept:
    """A kind of thing in the toy worlds.

    Attributes:
        name: its name in `concepts.toml`.
        ancestors: itself, its parent, and so on to the top.
        shape: the outline of a leaf, a name from `shapes.SHAPES`; "" for stuff without one, and for inner kinds.
        height: metres, larger than life for the small ones, so that a toy image shows them; 0 for stuff.
        aspect: width over height.
        variety: how much individuals differ in colour, 0..1.
        leaf: whether nothing is under it: only leaves are drawn.
        held_out: never drawn in a training image.
    """

    name: str
    ancestors: tuple[str, ...]
    shape: str
    height: float
    aspect: float
    variety: float
    leaf: bool
    held_out: bool


@cache
def _tree() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("labelmerge.demo").joinpath("concepts.toml").read_text(encoding="utf-8"))


@cache
def concepts() -> dict[str, Concept]:
    """Every concept by its name; parents before children."""
    tree = _tree()
    parents = {node.get("parent", "") for node in tree.values()}
    found: dict[str, Concept] = {}
    for name, node in tree.items():
        above = found[node["parent"]].ancestors if "parent" in node else ()
        height, aspect = node.get("size", (0.0, 0.0))
        found[name] = Concept(
            name=name,
            ancestors=(name, *above),
            shape=node.get("shape", ""),
            height=height,
            aspect=aspect,
            variety=node.get("variety", 0.0),
            leaf=name not in parents,
            held_out=node.get("held_out", False),
        )
    return found


@cache
def leaves() -> tuple[str, ...]:
    """The concepts that are drawn; a place in this tuple is the concept's id in a scene's concept map."""
    return tuple(concept.name for concept in concepts().values() if concept.leaf)


def draw_looks(rng: np.random.Generator) -> dict[str, Look]:
    """One world's looks, for every concept: the parent's look, or the given average, plus random variation."""
    looks: dict[str, Look] = {}
    for name, node in _tree().items():
        parent = node.get("parent")
        siblings = [looks[n] for n, other in _tree().items() if n in looks and other.get("parent") == parent]
        chance = _CHANCE_LEAF if concepts()[name].leaf else _CHANCE_KIND
        best, best_difference = None, -1.0
        for _ in range(_MAX_DRAWS):
            look = _vary(
                _average(looks[parent] if isinstance(parent, str) else None, node.get("look", {})),
                chance,
                rng,
            )
            difference = min((look.difference(other) for other in siblings), default=np.inf)
            if difference > best_difference:
                best, best_difference = look, difference
            if parent is None or difference >= _LEAST_DIFFERENCE:
                break
        assert best is not None
        looks[name] = best
    return looks


def _average(parent: Look | None, given: Mapping[str, float]) -> Look:
    base = parent or Look(0.0, 0.3, 0.5, 0.0, -0.12, np.zeros(len(TEXTURES)), 0.0, 0.0, np.zeros(SHAPE_TRAITS))
    return replace(
        base,
        hue=given.get("hue", base.hue),
        saturation=given.get("saturation", base.saturation),
        value=given.get("value", base.value),
        texture=base.texture + np.array([given.get(kind, 0.0) for kind in TEXTURES]),
    )


def _vary(look: Look, chance: Mapping[str, float], rng: np.random.Generator) -> Look:
    return Look(
        hue=look.hue + rng.normal(0, chance["hue"]),
        saturation=float(np.clip(look.saturation + rng.normal(0, chance["saturation"]), 0.02, 0.95)),
        value=float(np.clip(look.value + rng.normal(0, chance["value"]), 0.15, 0.95)),
        second_hue=look.second_hue + rng.normal(0, chance["hue"]),
        second_value=float(np.clip(look.second_value + rng.normal(0, chance["value"]), -0.35, 0.35)),
        texture=look.texture + rng.normal(0, chance["texture"], len(TEXTURES)),
        scale=float(np.clip(look.scale + rng.normal(0, chance["scale"]), -0.8, 1.0)),
        angle=look.angle + rng.normal(0, chance["angle"]),
        shape=np.clip(look.shape + rng.normal(0, chance["shape"], SHAPE_TRAITS), -2.0, 2.0),
    )
