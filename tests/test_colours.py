"""Colours of labels, and colours and shapes of datasets."""

from __future__ import annotations

import numpy as np
import pytest

from labelmerge.colours import dataset_styles, oklab, palette

NAMES = ["road", "sky", "horse", "animal--ground-animal"]


def test_a_name_keeps_its_colour() -> None:
    alone = {name: tuple(palette([name])[0]) for name in NAMES}
    assert {name: tuple(colour) for name, colour in zip(NAMES, palette(NAMES), strict=True)} == alone
    assert tuple(palette([" Sky "])[0]) == alone["sky"]
    red, green, blue = alone["sky"]
    assert blue > green > red


def test_colours_in_one_picture_differ() -> None:
    names = [f"class {number}" for number in range(40)]
    places = [oklab(colour) for colour in palette(names)]
    gaps = [float(np.linalg.norm(a - b)) for n, a in enumerate(places) for b in places[:n]]
    assert min(gaps) > 0.06
    many = palette([f"class {number}" for number in range(250)])
    assert len(np.unique(many, axis=0)) > 150


def test_a_road_looks_like_itself_whoever_stands_before_it() -> None:
    from labelmerge.colours import _NATURAL

    others = [f"thing {number}" for number in range(200)]
    assert tuple(palette([*others, "Road", "sky"])[-2:].tolist()) == (list(_NATURAL["road"]), list(_NATURAL["sky"]))


def test_coco_names_look_like_what_they_name() -> None:
    grass, sky, tree = palette(["grass", "sky", "tree"]).tolist()
    assert palette(["grass-merged", "sky-other-merged"]).tolist() == [grass, sky]
    both = palette(["tree", "tree-merged"]).tolist()
    assert both[0] == tree and both[1] != tree


def test_equal_names_have_equal_colours_and_none_is_fine() -> None:
    same = palette(["sky", "deer", "sky"])
    assert (same[0] == same[2]).all() and (same[0] != same[1]).any()
    assert palette([]).shape == (0, 3)


def test_datasets_differ_in_colour_or_shape() -> None:
    names = [f"dataset {n}" for n in range(100)]
    styles = dataset_styles(names)
    assert list(styles) == sorted(names) and styles == dataset_styles(names[::-1])
    looks = list(styles.values())
    assert len(set(looks)) == 100 and len({style.colour for style in looks[:24]}) == 24
    assert all(a.colour != b.colour and a.shape != b.shape for a, b in zip(looks, looks[1:], strict=False))


# G. M. Machado et al., "A physiologically-based model for simulation of color vision deficiency" (2009), full severity:
# what light in linear RGB looks like.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_colour_blind_tell_six_datasets_apart(deficiency: str) -> None:
    seen = []
    for style in dataset_styles([f"dataset {n}" for n in range(6)]).values():
        value = np.array(list(bytes.fromhex(style.colour[1:]))) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        linear = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
        value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        seen.append(oklab(np.round(value * 255).astype(np.uint8)))
    gaps = [float(np.linalg.norm(a - b)) for n, a in enumerate(seen) for b in seen[:n]]
    assert min(gaps) > 0.05
