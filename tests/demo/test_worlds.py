"""The toy datasets: in their official layouts, for the shipped recipes; the same for a seed; unseen is unseen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from labelmerge.catalog import load_label_space
from labelmerge.demo.concepts import concepts, draw_looks, leaves
from labelmerge.demo.datasets import write_worlds
from labelmerge.demo.worlds import (
    HELD_OUT,
    TRAINING,
    UNLABELLED,
    WORLDS,
    ToySample,
    draw_samples,
    label_of,
    recipe_of,
    taxonomies,
    unseen_labels,
)
from labelmerge.errors import OutputError
from labelmerge.names import prompt_name
from labelmerge.sharding.shard import shard
from labelmerge.shardset.sample import Sample
from labelmerge.shardset.shardset import ShardSet

IMAGES = 6
SEED = 3
MASKS = [name for name in WORLDS if name not in ("openimages", "objects365")]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds")
    write_worlds(out, IMAGES, SEED)
    return out


def read_back(worlds: Path, dataset: str, out: Path) -> tuple[list[Sample], list[ToySample]]:
    """What the shipped recipe makes of the files, and what was drawn; both in the order of the files' names."""
    report = shard(recipe_of(dataset, worlds), worlds / dataset, WORLDS[dataset].split, out)
    assert report.folder is not None and not report.skipped
    shards = ShardSet.open(report.folder)
    samples = [shards.read(number) for number in range(len(shards))]
    return samples, list(draw_samples(dataset, worlds, IMAGES, SEED))


@pytest.mark.parametrize("dataset", MASKS)
def test_shipped_recipes_read_every_pixel_as_it_was_drawn(dataset: str, worlds: Path, tmp_path: Path) -> None:
    samples, drawn = read_back(worlds, dataset, tmp_path)
    assert len(samples) == IMAGES
    space = load_label_space(recipe_of(dataset, worlds))
    expected = []
    for toy in drawn:
        truth = np.where(toy.classes == UNLABELLED, space.ignore_index, toy.classes)
        if dataset == "cityscapes" and toy.number % 4 == 0:
            truth[-3:] = space.ignore_index  # the camera's own car
        expected.append(hashlib.sha256(truth.astype(np.int64).tobytes()).hexdigest())
    found = [hashlib.sha256(np.asarray(sample.mask, dtype=np.int64).tobytes()).hexdigest() for sample in samples]
    assert sorted(found) == sorted(expected)  # names are random in some layouts, and so is the order


def test_open_images_masks_are_partial_and_rough_but_right(worlds: Path, tmp_path: Path) -> None:
    samples, drawn = read_back(worlds, "openimages", tmp_path)
    truths = {toy.image.tobytes(): toy.classes for toy in drawn}
    labelled = agree = whole = 0
    for toy in drawn:
        whole += int((toy.classes != UNLABELLED).sum())
    for sample in samples:
        mask = np.asarray(sample.mask)
        known = mask != 65535
        # The JPEG is not what was drawn to the last bit: find the drawing that it looks most like.
        near = min(drawn, key=lambda toy: float(np.abs(toy.image.astype(int) - np.asarray(sample.image)).mean()))
        labelled += int(known.sum())
        agree += int((mask[known] == near.classes[known]).sum())
    assert len(truths) == IMAGES and len(samples) == IMAGES
    assert 0.4 * whole < labelled < 0.95 * whole
    assert 0.75 < agree / labelled < 0.999


def test_objects365_boxes_are_the_things_outlines(worlds: Path, tmp_path: Path) -> None:
    report = shard(recipe_of("objects365", worlds), worlds / "objects365", "train", tmp_path)
    assert sum(report.notes.values()) >= 1  # the zero-width box of image 0
    content = json.loads((worlds / "objects365/zhiyuan_objv2_train.json").read_text())
    assert [c["id"] for c in content["categories"]] != sorted(c["id"] for c in content["categories"])
    drawn = {toy.number: toy for toy in draw_samples("objects365", worlds, IMAGES, SEED)}
    for note in content["annotations"]:
        x, y, w, h = note["bbox"]
        if w == 0:
            continue
        toy, index = drawn[note["image_id"]], note["category_id"] - 1
        inside = toy.classes[max(int(y), 0) : int(y + h) + 1, max(int(x), 0) : int(x + w) + 1]
        assert (inside == index).mean() > 0.1


def test_same_seed_same_files_other_seed_other_world(worlds: Path, tmp_path: Path) -> None:
    write_worlds(tmp_path / "again", IMAGES, SEED)

    def digest(folder: Path) -> dict[str, str]:
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*")
            if p.is_file()
        }

    assert digest(tmp_path / "again") == digest(worlds)
    here, there = draw_looks(np.random.default_rng(1)), draw_looks(np.random.default_rng(2))
    assert here["dog"].hue != there["dog"].hue
    with pytest.raises(OutputError, match="already exists"):
        write_worlds(tmp_path / "again", 1, SEED)


def test_a_sample_does_not_depend_on_how_many_are_drawn(worlds: Path) -> None:
    few, many = list(draw_samples("village", worlds, 2, 0)), list(draw_samples("village", worlds, 3, 0))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(few, many, strict=False))


def test_relatives_look_alike() -> None:
    """Kinds of one parent differ less than kinds of different families, on average over worlds."""
    near, far = [], []
    for seed in range(12):
        looks = draw_looks(np.random.default_rng(seed))
        near += [looks["dog"].difference(looks["wolf"]), looks["bus"].difference(looks["coach"])]
        far += [looks["dog"].difference(looks["coach"]), looks["bus"].difference(looks["wolf"])]
    assert np.mean(near) < 0.8 * np.mean(far)


def test_unseen_labels_are_in_no_training_dataset() -> None:
    unseen = unseen_labels("village")
    assert set(unseen) == {"wolf", "heron", "tractor", "coach", "cottage", "hedge", "rat"}
    assert unseen_labels("camvid") == ()
    names = {prompt_name(name) for dataset in TRAINING for name in taxonomies()[dataset]}
    assert not names & {prompt_name(name) for name in unseen}


@pytest.mark.parametrize("dataset", TRAINING)
def test_no_training_image_shows_a_held_out_kind(dataset: str, worlds: Path) -> None:
    shown = {thing.concept for toy in draw_samples(dataset, worlds, 20, SEED) for thing in toy.scene.things}
    assert shown and not {kind for kind in shown if concepts()[kind].held_out}


def test_every_label_occurs(worlds: Path) -> None:
    for dataset in HELD_OUT:
        names = load_label_space(recipe_of(dataset, worlds))
        drawn = np.concatenate([toy.classes.ravel() for toy in draw_samples(dataset, worlds, 50, SEED)])
        assert {names.name_of(int(index)) for index in np.unique(drawn[drawn >= 0])} == set(taxonomies()[dataset])


def test_taxonomies_use_official_names_and_known_concepts() -> None:
    for dataset, labels in taxonomies().items():
        assert set(labels) <= set(load_label_space(recipe_of(dataset, village_recipe())).names), dataset
        assert {concept for meant in labels.values() for concept in meant} <= set(concepts())
        assert set(label_of(dataset).values()) == set(labels)
        assert set(label_of(dataset)) <= set(leaves())


def village_recipe() -> Path:
    from importlib.resources import files

    folder = files("labelmerge.demo")
    assert isinstance(folder, Path)
    return folder
