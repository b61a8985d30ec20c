from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelmerge.errors import ConfigError, LabelmergeError, ShardError
from labelmerge.labels import IGNORE
from labelmerge.loading.augment import Augmentation, Photometric
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.loading.mixture import Mixture, schedule
from labelmerge.shardset.sample import Encoded
from labelmerge.shardset.shardset import ShardSet

from .toy_shards import Toy

STREETS = Toy("streets", ("road", "sky", "car"), count=5)
PARTS = Toy("parts", ("tree", "road"), "noisy_mask", count=3)
THINGS = Toy("things", ("cup", "cat", "car"), "box", count=7)
TOYS = (STREETS, PARTS, THINGS)


def mixture(folder: Path, toys: Sequence[Toy] = TOYS, batch_size: int = 6, seed: int = 0, **more: Any) -> Mixture:
    sources = group_by_dataset([ShardSet.open(toy.write(folder)) for toy in toys])
    return Mixture(sources, batch_size, seed, Augmentation(crop=24), **more)


def batch_of(mixed: Mixture, step: int = 0) -> Batch:
    """The one batch of a step."""
    (batch,) = mixed.batch(step)
    return batch


def batches_of(mixed: Mixture, start: int, stop: int, **more: Any) -> list[Batch]:
    return [batch for (batch,) in mixed.batches(start, stop, **more)]


def same(a: Batch, b: Batch) -> bool:
    lists = zip([*a.boxes, *a.box_classes], [*b.boxes, *b.box_classes], strict=True)
    tensors = [(a.images, b.images), (a.masks, b.masks), (a.dataset_ids, b.dataset_ids), *lists]
    return a.keys == b.keys and a.step == b.step and all(torch.equal(x, y) for x, y in tensors)


def test_a_batch_says_what_each_sample_is(tmp_path: Path) -> None:
    batch = batch_of(mixture(tmp_path))
    assert batch.datasets == ["parts", "streets", "things"] * 2 and batch.dataset_ids.tolist() == [0, 1, 2] * 2
    assert batch.annotation_types == ["noisy_mask", "mask", "box"] * 2
    assert batch.images.shape == (6, 3, 24, 24) and batch.images.dtype == torch.uint8
    assert batch.masks.shape == (6, 24, 24) and batch.masks.dtype == torch.int16
    assert set(batch.masks[1].flatten().tolist()) <= {IGNORE, 0, 1, 2}
    assert (batch.masks[2] == IGNORE).all() and (batch.masks[1] != IGNORE).any()
    for i in range(6):
        assert (len(batch.boxes[i]) > 0) == (batch.annotation_types[i] == "box")
        assert batch.boxes[i].dtype == torch.float32 and batch.box_classes[i].dtype == torch.int64
        assert len(batch.boxes[i]) == len(batch.box_classes[i]) <= 2  # the crowd box is left out
        assert batch.keys[i].startswith(batch.datasets[i])
    some = batch.part(2, 5)
    assert some.keys == batch.keys[2:5] and torch.equal(some.images, batch.images[2:5]) and some.step == batch.step
    assert same(batch.part(0, 6), batch) and len(some.boxes) == len(some.datasets) == len(some.unfinished) == 3


def test_tables_turn_class_indices_into_columns(tmp_path: Path) -> None:
    shift = {toy.name: toy.space.lookup({i: i + 300 for i in toy.space.indices if i}, IGNORE) for toy in TOYS}
    plain, shifted = mixture(tmp_path / "a"), mixture(tmp_path / "b", tables=shift)
    one, two = batch_of(plain), batch_of(shifted)
    expected = torch.where(one.masks > 0, one.masks + 300, torch.full_like(one.masks, IGNORE))
    assert torch.equal(two.masks, expected) and (two.masks != IGNORE).any()
    assert all((classes >= 301).all() for classes in two.box_classes)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(tmp_path: Path, workers: int) -> None:
    here = batches_of(mixture(tmp_path), 0, 7)
    there = batches_of(mixture(tmp_path), 0, 7, workers=workers)
    assert len(here) == len(there) == 7 and all(map(same, here, there))


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    whole = batches_of(mixture(tmp_path), 0, 9)
    late = batches_of(mixture(tmp_path, cache_mb=0), 6, 9)
    assert all(map(same, whole[6:], late))
    assert not same(whole[0], batch_of(mixture(tmp_path, seed=1)))


def test_a_datasets_samples_do_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    together = batches_of(mixture(tmp_path, batch_size=3), 0, 8)
    alone = batches_of(mixture(tmp_path, [STREETS], batch_size=1), 0, 8)
    assert [batch.keys[1] for batch in together] == [batch.keys[0] for batch in alone]
    assert all(torch.equal(a.images[1], b.images[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 9])
def test_shares_are_equal_in_every_batch_and_over_the_run(tmp_path: Path, batch_size: int) -> None:
    counts: Counter[str] = Counter()
    mixed = mixture(tmp_path, batch_size=batch_size)
    for step in range(12):
        batch = Counter(batch_of(mixed, step).datasets)
        counts += batch
        assert all(batch_size // 3 <= batch[name] <= -(-batch_size // 3) for name in mixed.datasets)
        assert max(counts[n] for n in mixed.datasets) - min(counts[n] for n in mixed.datasets) <= 1


def test_every_epoch_has_every_sample_once_in_another_order(tmp_path: Path) -> None:
    keys = [batch.keys[0] for batch in batches_of(mixture(tmp_path, [STREETS], batch_size=1), 0, 20)]
    epochs = [keys[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 5 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_weights_are_whole_shares(tmp_path: Path) -> None:
    mixed = mixture(tmp_path, batch_size=4, weights={"things": 2})
    for step in range(5):
        assert Counter(batch_of(mixed, step).datasets) == {"parts": 1, "streets": 1, "things": 2}
    numbers = [number for step in range(5) for dataset, number in mixed.slots(step) if dataset == 2]
    assert numbers == list(range(10))
    with pytest.raises(ConfigError, match="thing"):
        mixture(tmp_path, weights={"thing": 2})
    with pytest.raises(ConfigError, match="1 or more"):
        mixture(tmp_path, weights={"things": 0})


@pytest.mark.parametrize("world", [2, 3, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_of_all_ranks_are_the_batch_of_one_process(tmp_path: Path, world: int, workers: int) -> None:
    alone = batches_of(mixture(tmp_path, batch_size=12, weights={"things": 2}), 0, 5)
    for rank in range(world):
        some = mixture(tmp_path, batch_size=12, weights={"things": 2}, rank=rank, world=world)
        rows = rank * 12 // world, (rank + 1) * 12 // world
        mine = batches_of(some, 0, 5, workers=workers if rank == 1 else 0)
        assert len(mine) == len(alone) and all(map(same, mine, [batch.part(*rows) for batch in alone]))


def test_ranks_share_a_batch_equally_or_not_at_all(tmp_path: Path) -> None:
    counts = Counter(batch_of(mixture(tmp_path, batch_size=12, rank=1, world=2), 3).datasets)
    assert counts == {"parts": 2, "streets": 2, "things": 2}
    with pytest.raises(ConfigError, match="batches of 6 can't be shared equally by 4 processes.*multiple of 4"):
        mixture(tmp_path, rank=1, world=4)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        mixture(tmp_path, rank=2, world=2)


def test_a_batch_from_a_worker_is_not_copied_on_its_way(tmp_path: Path) -> None:
    (batch,) = batches_of(mixture(tmp_path), 0, 1, workers=1)
    shared = {True: [batch.images, batch.masks], False: [*batch.boxes, *batch.box_classes]}  # many small ones
    assert all(tensor.untyped_storage().is_shared() == way for way, tensors in shared.items() for tensor in tensors)
    here = batch.to(torch.device("cpu"))
    assert here.masks.dtype == torch.int64 and torch.equal(here.masks, batch.masks.long())


@pytest.mark.parametrize("workers", [0, 1])
def test_colour_and_blur_may_be_left_to_the_device_that_trains(tmp_path: Path, workers: int) -> None:
    views = Augmentation(crop=24, blur=0.5, jpeg=0.3)
    sources = mixture(tmp_path).sources
    here = torch.device("cpu")
    for own in batches_of(Mixture(sources, 6, 0, views), 0, 4):
        deferred = Mixture(sources, 6, 0, views, defer=True)
        (left,) = batches_of(deferred, own.step, own.step + 1, workers=workers)
        waiting = [i for i in range(6) if left.unfinished[i] != Photometric()]
        differ = [i for i in range(6) if not torch.equal(own.images[i], left.images[i])]
        # what has JPEG artefacts is finished already, because they come last
        assert differ and set(differ) <= set(waiting) and not any(each.quality for each in left.unfinished)
        assert all(each == Photometric() for each in own.unfinished)
        finished = left.to(here)
        assert same(own.to(here), finished) and same(finished, finished.to(here))
        assert all(not torch.equal(own.images[i], left.images[i]) for i in differ)  # `to` changes no batch in place
        assert torch.equal(left.part(2, 5).to(here).images, own.images[2:5])


def test_more_labels_than_sixteen_bits_hold(tmp_path: Path) -> None:
    far = {toy.name: toy.space.lookup({i: i + 40_000 for i in toy.space.indices}, IGNORE) for toy in TOYS}
    plain, shifted = batch_of(mixture(tmp_path)), batch_of(mixture(tmp_path, tables=far))
    assert shifted.masks.dtype == torch.int32
    assert torch.equal(torch.where(plain.masks == IGNORE, IGNORE, plain.masks.int() + 40_000), shifted.masks)


def test_whether_samples_are_kept_changes_nothing(tmp_path: Path) -> None:
    made = [batches_of(mixture(tmp_path, cache_mb=cache_mb), 0, 6) for cache_mb in (0, 256)]
    assert all(map(same, *made))


def test_the_schedule_spreads_turns() -> None:
    assert schedule([1, 1, 1]) == [0, 1, 2] == schedule([5, 5, 5])
    cycle = schedule([4, 2, 1])
    assert Counter(cycle) == {0: 4, 1: 2, 2: 1}
    assert all(Counter(cycle[i : i + 3])[0] <= 2 for i in range(5))


def test_corrupt_samples_are_replaced_and_named(tmp_path: Path) -> None:
    broken = Toy("streets", STREETS.names, count=5, corrupt=(1, 3))
    mixed = mixture(tmp_path, [broken], batch_size=5)
    batch = batch_of(mixed)
    assert len(batch.keys) == 5 and {key[-1] for key in batch.keys} == {"0", "2", "4"}
    assert {line.split(": ")[1][-1] for line in batch.skipped} == {"1", "3"}
    assert same(batch, batches_of(mixture(tmp_path, [broken], batch_size=5), 0, 1, workers=1)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_that_are_corrupt_throughout_are_an_error_from_any_process(tmp_path: Path, workers: int) -> None:
    broken = Toy("streets", STREETS.names, count=3, corrupt=(0, 1, 2))
    with pytest.raises(ShardError, match="sample after sample of streets is corrupt") as caught:
        list(mixture(tmp_path, [broken]).batches(0, 2, workers=workers))
    assert isinstance(caught.value, LabelmergeError) and "\n" not in str(caught.value)


def test_a_worker_that_dies_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mixture, "batch", lambda self, step: os._exit(1))
    with pytest.raises(LabelmergeError, match="a loading process died .*fewer --workers") as caught:
        list(mixture(tmp_path).batches(0, 2, workers=1))
    assert "\n" not in str(caught.value)


def test_splits_of_one_dataset_are_one_source(tmp_path: Path) -> None:
    val = Toy("streets", STREETS.names, count=2, split="val")
    mixed = mixture(tmp_path, [STREETS, val, PARTS], batch_size=2)
    assert mixed.datasets == ["parts", "streets"] and len(mixed.sources[1]) == 7
    assert len({batch.keys[1] for batch in batches_of(mixed, 0, 7)}) == 7
    other = Toy("streets", ("road", "sea"), split="test")
    with pytest.raises(ShardError, match="another label space"):
        mixture(tmp_path, [STREETS, other])
    again = [ShardSet.open(STREETS.write(tmp_path / name)) for name in ("a", "b")]
    with pytest.raises(ShardError, match="is streets's train split, and so is"):
        group_by_dataset(again)


def test_decoded_samples_are_kept_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    fetch = ShardSet.fetch

    def counted(self: ShardSet, number: int, **more: Any) -> Encoded:
        reads.append(number)
        return fetch(self, number, **more)

    monkeypatch.setattr(ShardSet, "fetch", counted)
    list(mixture(tmp_path, [STREETS], batch_size=5).batches(0, 4))
    assert len(reads) == 5
    reads.clear()
    list(mixture(tmp_path, [STREETS], batch_size=5, cache_mb=0).batches(0, 4))
    assert len(reads) == 20


def test_box_embeddings_follow_their_boxes(tmp_path: Path) -> None:
    toy = Toy("things", THINGS.names, "box", embedding_dim=8)
    shards = ShardSet.open(toy.write(tmp_path))
    batch = batch_of(mixture(tmp_path, [toy], batch_size=6))
    for key, boxes, classes, vectors in zip(
        batch.keys, batch.boxes, batch.box_classes, batch.box_embeddings, strict=True
    ):
        original = shards.read(int(key[-9:]))
        assert vectors is not None and len(vectors) == len(boxes) and original.box_embeddings is not None
        for name, vector in zip(classes, vectors, strict=True):
            which = int(np.flatnonzero(original.box_classes[:2] == int(name))[0])
            assert torch.equal(vector, torch.from_numpy(original.box_embeddings[which].astype(np.float32)))


# --- what methods may ask for besides ---------------------------------------------------------------------------------

PANOPTIC = Toy("streets", STREETS.names, count=5, segments=True)


def test_segments_are_cut_out_with_the_mask(tmp_path: Path) -> None:
    toys = [PANOPTIC, PARTS]
    tables = {
        toy.name: toy.space.lookup({i: i + 10 for i in toy.space.indices if i or toy is PARTS}, IGNORE) for toy in toys
    }
    mixed = mixture(tmp_path, toys, batch_size=8, segments=True, tables=tables)
    for batch in batches_of(mixed, 0, 6):
        assert batch.instances is not None and batch.instances.dtype == torch.int32
        assert batch.instances.shape == batch.masks.shape
        for mask, ids, segments, dataset in zip(
            batch.masks, batch.instances, batch.segments, batch.datasets, strict=True
        ):
            if dataset == "parts":
                assert segments is None and not ids.any()
                continue
            assert segments is not None
            assert set(segments.ids.tolist()) == set(ids.unique().tolist()) - {0} <= {7, 300}  # what vanished is gone
            for number, column, crowd in zip(segments.ids, segments.classes, segments.crowd, strict=True):
                assert (mask[ids == number] == column).all() and bool(crowd) == (number == 300)
    kinds = {len(each.ids) for batch in batches_of(mixed, 0, 6) for each in batch.segments if each is not None}
    assert kinds == {1, 2}


def test_segments_cost_nothing_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batch_of(mixture(tmp_path / "a", [STREETS]))
    monkeypatch.setattr(Encoded, "segments", None)
    batch = batch_of(mixture(tmp_path / "b", [PANOPTIC]))
    assert same(batch, plain) and batch.instances is None and batch.segments == [None] * 6


@pytest.mark.parametrize("cache_mb", [0, 256])
def test_segments_from_a_worker_and_in_parts(tmp_path: Path, cache_mb: int) -> None:
    here = batch_of(mixture(tmp_path, [PANOPTIC], segments=True, views=2))
    asked = mixture(tmp_path, [PANOPTIC], segments=True, views=2, cache_mb=cache_mb)
    (there,) = batches_of(asked, 0, 1, workers=1)
    for one, other in ((here, there), (here.others[0], there.others[0])):
        assert same(one, other) and one.instances is not None and other.instances is not None
        assert torch.equal(one.instances, other.instances)
        assert [each and each.ids.tolist() for each in one.segments] == [
            each and each.ids.tolist() for each in other.segments
        ]
    part = here.part(1, 3).to(torch.device("cpu"))
    assert part.instances is not None and here.instances is not None
    assert torch.equal(part.instances, here.instances[1:3])
    assert part.places == [1, 2] and part.whole == 6 and len(part.segments) == 2 == len(part)
    assert torch.equal(part.others[0].images, here.others[0].images[1:3])


def test_further_views_leave_the_first_as_it_is(tmp_path: Path) -> None:
    one, three = batch_of(mixture(tmp_path)), batch_of(mixture(tmp_path, views=3))
    assert same(one, three) and one.others == () and len(three.others) == 2
    for other in three.others:
        assert other.keys == three.keys and other.places == three.places
        assert not torch.equal(other.images, three.images)
    assert not torch.equal(three.others[0].images, three.others[1].images)
    assert torch.equal(three.others[0].images, batch_of(mixture(tmp_path, views=2)).others[0].images)


def test_images_alone_have_no_labels(tmp_path: Path) -> None:
    batch = batch_of(mixture(tmp_path, [STREETS, Toy("snaps", ("dog", "cat"), "image", count=3)]))
    assert batch.annotation_types == ["image", "mask"] * 3
    assert (batch.masks[0] == IGNORE).all() and len(batch.boxes[0]) == 0
    assert batch.images[0].float().std() > 0


def test_datasets_may_have_views_of_their_own(tmp_path: Path) -> None:
    own = {"streets": Augmentation(crop=(16, 40), scale=(1.0, 1.0), flip=0), "things": Augmentation(crop=24, colour=0)}
    mixed = mixture(tmp_path, batch_size=7, own=own)
    plain = batch_of(mixture(tmp_path, batch_size=7))
    for step in range(3):
        first, second = mixed.batch(step)
        sizes = {tuple(batch.images.shape[2:]): batch for batch in (first, second)}
        assert set(sizes) == {(24, 24), (16, 40)} and first.step == second.step == step
        assert set(sizes[16, 40].datasets) == {"streets"} and "streets" not in sizes[24, 24].datasets
        assert sorted(first.places + second.places) == list(range(7)) and first.whole == 7
        assert all(batch.masks.shape[1:] == size for size, batch in sizes.items())
        if not step:  # another dataset's views change nothing
            square = sizes[24, 24]
            for i, place in enumerate(square.places):
                assert square.keys[i] == plain.keys[place]
                if square.datasets[i] == "parts":
                    assert torch.equal(square.images[i], plain.images[place])
    with pytest.raises(ConfigError, match="views for 'street', which is not here.*streets"):
        mixture(tmp_path, own={"street": Augmentation(crop=8)})


def test_ranks_share_views_of_several_sizes_equally_or_not_at_all(tmp_path: Path) -> None:
    own = {"streets": Augmentation(crop=16)}
    alone = mixture(tmp_path, batch_size=6, own=own).batch(2)
    ranks = [mixture(tmp_path, batch_size=6, own=own, rank=rank, world=2).batch(2) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert whole.places == [place for part in parts for place in part.places]
    with pytest.raises(ConfigError, match="views of 2 sizes, the 2 samples of each of 2 processes.*multiple of 6"):
        mixture(tmp_path, batch_size=4, own=own, world=2)


def test_pieces_are_nearly_equal_and_never_empty(tmp_path: Path) -> None:
    batch = batch_of(mixture(tmp_path))
    assert batch.pieces(1) == [batch]
    for count in (2, 4, 6, 9):
        pieces = batch.pieces(count)
        assert len(pieces) == min(count, 6) and {len(piece) for piece in pieces} <= {1, 2, 3}
        assert [key for piece in pieces for key in piece.keys] == batch.keys
