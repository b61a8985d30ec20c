"""`labelmerge relabel`: the shards of several datasets → shards in one taxonomy, for any trainer.

What a person said is kept, what is left open is decided by a trained model or else ignored, and the manifest says which
is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.device import choose_device
from labelmerge.errors import ShardError, TaxonomyError, UsageError
from labelmerge.files import (
    locked,
    no_empty_folders,
    output_faults,
    say_others,
    sha256_file,
    sweep_temporaries,
    whole_or_nothing,
    write_json,
)
from labelmerge.labels import LabelKey, LabelSpace, names_of
from labelmerge.merge.columns import concept_vectors
from labelmerge.merge.taxonomy import Taxonomy, read_taxonomy, space_name
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import Trained, load_bank, load_trained
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.model.views import Views
from labelmerge.predict.provenance import (
    Job,
    Made,
    about,
    manifest_of,
    things_of,
)
from labelmerge.predict.rewriting import write_shards
from labelmerge.predict.splitting import Model, Rule
from labelmerge.progress import Track, no_track
from labelmerge.shardset.croissant import CROISSANT, write_croissant
from labelmerge.shardset.manifest import IN_SHARDS, MANIFEST, read_manifest
from labelmerge.shardset.shard import shards_of
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits

CONFIDENCE = 0.5
"""From here on a concept is likelier than all others of its label together."""

LEAST_COVER = 0.2
"""A mask that covers less of its box is more likely a part of something else."""

_AS_TRAINED = Views()


def _tables(checkpoint: Path | None) -> str:
    """What a taxonomy may be given by: the run's own, too, where it has one."""
    own = load_checkpoint(checkpoint).taxonomy_file if checkpoint is not None else None
    its = f" {own}, which the run was trained with, or another," if own is not None else ","
    return f"Give --taxonomy{its} or --instances for masks of boxes"


@dataclass(frozen=True)
class SplitReport:
    """What became of one split.

    Attributes:
        folder: its new shards.
        annotation_type: before and after.
        images: how many were written.
        skipped: key and reason of the others.
        counts: pixels, segments and boxes: ``mapped_pixels``, ``predicted_pixels``, ``unsure_pixels``,
            ``dropped_segments``, ``predicted_boxes``, ``dropped_boxes``; of boxes as segments ``predicted_masks`` and
            ``dropped_masks``.
        open: the names of the labels that stand for several concepts.
        kept: whether an earlier run of the same command had made it.
    """

    folder: Path
    dataset: str
    split: str
    annotation_type: tuple[str, str]
    images: int
    skipped: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    open: tuple[str, ...]
    kept: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class RelabelReport:
    """What `relabel` did.

    Attributes:
        space: the concepts.
        splits: one entry each.
        left_out: what has no annotation to relabel.
        checkpoint: the hash of the model that split labels; None without one.
    """

    space: LabelSpace
    splits: tuple[SplitReport, ...]
    left_out: tuple[str, ...]
    checkpoint: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "label_space": self.space.to_json(),
            "checkpoint": self.checkpoint,
            "splits": [split.to_json() for split in self.splits],
            "left_out": list(self.left_out),
        }


def relabel(
    folders: Sequence[Path],
    taxonomy: Path | None,
    out: Path,
    *,
    checkpoint: Path | None = None,
    bank: Path | None = None,
    name: str | None = None,
    confidence: float = CONFIDENCE,
    instances: bool = False,
    least_cover: float = LEAST_COVER,
    views: Views = _AS_TRAINED,
    device: str | None = None,
    track: Track = no_track,
) -> RelabelReport:
    """Write shards whose label space is a taxonomy's concepts, into ``<out>/<dataset>/<split>/``.

    A label of one concept becomes it. A label of several is split by the model among these alone; where the likeliest
    is less sure than `confidence`, and everywhere without a model, it becomes "no label". Boxes become masks within
    the boxes, so a box dataset becomes a noisy_mask one; without a model it keeps its boxes. Images alone become a
    noisy_mask dataset of what the model sees in them. Images and depths stay as they are, byte for byte. The same
    command goes on from the last finished split.

    Args:
        folders: splits, datasets, or folders of datasets.
        taxonomy: as `labelmerge merge` writes it. None: images alone, and with `instances` boxes, get masks in the
            labels of their own dataset, and whatever has masks is left out.
        out: folder for all datasets' shards.
        checkpoint: a run, or one checkpoint folder.
        bank: holds the labels in question; made by the encoder that the checkpoint was trained with. None: the one that
            the checkpoint carries.
        name: of the label space; None: the file's.
        confidence: 0 to 1.
        instances: boxes become segments, too, one each (SSIW, section 4.4: pseudo masks for instance segmentation).
        least_cover: a mask that covers less than this share of its box is dropped.
        views: how images are shown to the model.

    Raises:
        ShardError, TaxonomyError, CheckpointError, BankError: these can't be used or don't fit together.
        UsageError: an option makes no sense; the method can't say how likely a label is.
        OutputError: no space, no permission.
    """
    if not 0 <= confidence <= 1:
        raise UsageError(f"confidence is {confidence}: it must be 0 to 1")
    if not 0 <= least_cover <= 1:
        raise UsageError(f"the least cover is {least_cover}: it must be 0 to 1")
    if instances and checkpoint is None:
        raise UsageError("only a model can make masks of boxes", fix="Give --checkpoint")
    if bank is not None and checkpoint is None:
        raise UsageError("a bank is for a model", fix="Give --checkpoint, too, or leave --bank out")
    found = [ShardSet.open(folder) for folder in find_splits(folders)]
    alone = checkpoint is not None and any(each.annotation_type == "image" for each in found)
    if taxonomy is None and not instances and not alone:
        raise UsageError("no taxonomy to relabel by", fix=_tables(checkpoint))
    reasons = {} if checkpoint is not None else {"image": "images alone"}
    if taxonomy is None:
        reasons |= {"mask": "masks already", "noisy_mask": "masks already"}
        reasons |= {} if instances else {"box": "boxes, which --instances makes masks of"}
    sets = [each for each in found if each.annotation_type not in reasons]
    left_out = tuple(
        f"{each.dataset} {each.split} has {reasons[each.annotation_type]}"
        for each in found
        if each.annotation_type in reasons
    )
    if not sets:
        raise ShardError(f"nothing to relabel: {'; '.join(left_out)}", where=folders[0])
    _refuse_twice(sets, out)
    say_others(out, "shards", IN_SHARDS)
    trained = None if checkpoint is None else load_trained(checkpoint, choose_device(device))
    vectors = None if trained is None else load_bank(bank, trained)
    labelled = [each for each in sets if each.annotation_type != "image"]
    table = None if taxonomy is None else _taxonomy(taxonomy, labelled, vectors)
    job = Job(
        table=table,
        space=sets[0].space if table is None or taxonomy is None else table.space(name or space_name(taxonomy)),
        taxonomy={} if taxonomy is None else {"name": taxonomy.name, "sha256": sha256_file(taxonomy)},
        trained=trained,
        bank=vectors,
        confidence=confidence,
        least_cover=least_cover if instances else None,
        views=views,
        things={(each.dataset, each.split): things_of(each) for each in sets if each.annotation_type != "image"},
    )
    rules = [_rule(job, each) for each in sets]  # so that whatever doesn't fit is said before anything is written
    reports = [_relabel_split(job, each, rule, out, track) for each, rule in zip(sets, rules, strict=True)]
    return RelabelReport(job.space, tuple(reports), left_out, None if trained is None else trained.checkpoint.hash)


def _refuse_twice(sets: Sequence[ShardSet], out: Path) -> None:
    first: dict[tuple[str, str], ShardSet] = {}
    for each in sets:
        if (twin := first.setdefault((each.dataset, each.split), each)) is not each:
            raise ShardError(f"is {each.dataset} {each.split}, and so is {twin.where}", where=each.where)
        if each.folder.resolve() == (out / each.dataset / each.split).resolve():
            raise UsageError(f"the output would replace {each.folder}", fix="Choose another --out")


def _taxonomy(path: Path, sets: Sequence[ShardSet], bank: Bank | None) -> Taxonomy:
    """The table, which must have all labels of the sets. Raises TaxonomyError, BankError."""
    names = {} if bank is None else dict(zip(bank.keys, bank.names, strict=True))
    for each in sets:
        if bank is not None:
            bank.refuse_other_names(each.space)
    names |= names_of(each.space for each in sets)
    table = read_taxonomy(path, names, others=True)
    for each in sets:
        if not all(key in table for key in each.space.keys):
            raise TaxonomyError(
                f"has no row for {each.space.name}",
                where=path,
                fix=f"Make it with a bank that has {each.space.name}: `labelmerge merge --bank BANK --out DIR`",
            )
    return table


def _rule(job: Job, each: ShardSet) -> Rule:
    """How one split's labels become concepts. Raises BankError, UsageError where the model can't serve."""
    if job.table is None:
        return _own_labels(job, each)
    number = {concept: place for place, concept in enumerate(job.table.concepts)}
    alone = each.annotation_type == "image"
    sets = {
        index: tuple(number[concept] for concept in job.table[each.space.name, index].concepts)
        for index in (() if alone else each.space.indices)
    }
    model = None
    if job.trained is not None and job.bank is not None:
        several = {concept for concepts in sets.values() if len(concepts) > 1 for concept in concepts}
        asked = list(range(len(job.space))) if alone or each.annotation_type == "box" else sorted(several)
        if asked:
            words = tuple(job.table.concepts[concept] for concept in asked)
            vectors = concept_vectors(job.bank, job.table, asked)
            labels = LabelList(words, words, (None,) * len(asked), vectors)
            model = Model(job.trained.predictor(labels, job.views, dataset=each.dataset), asked)
    boxes = each.annotation_type == "box" and model is not None
    return Rule(
        job.space,
        each.space,
        sets,
        model,
        job.confidence,
        job.least_cover if boxes else None,
        each.space.indices_of(each.annotated),
    )


def _own_labels(job: Job, each: ShardSet) -> Rule:
    """Masks of boxes and of images alone, in the dataset's own labels, asked for by their texts, as in the paper.

    Raises BankError where the checkpoint's bank lacks some, or calls them otherwise.
    """
    assert job.trained is not None and job.bank is not None  # `relabel` asks for a checkpoint
    job.bank.refuse_other_names(each.space)
    own = {index: (index,) for index in each.space.indices}
    if each.annotation_type != "box":
        own_labels = LabelList.of(each.space, job.bank)
        predictor = job.trained.predictor(own_labels, job.views, job.bank, dataset=each.dataset)
        return Rule(each.space, each.space, own, Model(predictor, each.space.indices), job.confidence)
    others = _elsewhere(job.trained, job.bank, each.space)
    rows = [*job.bank.positions(each.space.keys), *job.bank.positions(others)]
    names, texts = (tuple(column[row] for row in rows) for column in (job.bank.names, job.bank.texts))
    labels = LabelList(names, texts, (*each.space.keys, *others), job.bank.vectors[rows])
    first = each.space.indices[-1] + 1
    numbers = (*each.space.indices, *range(first, first + len(others)))  # those of others are no class's
    model = Model(job.trained.predictor(labels, job.views, job.bank, dataset=each.dataset), numbers)
    return Rule(
        each.space, each.space, own, model, job.confidence, job.least_cover, each.space.indices_of(each.annotated)
    )


def _elsewhere(trained: Trained, bank: Bank, space: LabelSpace) -> list[LabelKey]:
    """Other datasets' labels that share no concept with any of a label space: what is around its things."""
    if (file := trained.checkpoint.taxonomy_file) is None:
        return []
    table = read_taxonomy(file, dict(zip(bank.keys, bank.names, strict=True)), others=True)
    own = {concept for key in space.keys if key in table for concept in table[key].concepts}
    return [key for key in bank.keys if key in table and key[0] != space.name and own.isdisjoint(table[key].concepts)]


def _relabel_split(job: Job, each: ShardSet, rule: Rule, out: Path, track: Track) -> SplitReport:
    folder = out / each.dataset / each.split
    source, _ = read_manifest(each.folder)
    wanted = about(job, each, rule, source)
    if (folder / MANIFEST).is_file():
        before, _ = read_manifest(folder)
        same = before["label_space"] == rule.space.to_json()
        if not same or {**before.get("relabel", {}), "counts": None} != {**wanted, "counts": None}:
            raise ShardError("holds other shards already", where=folder, fix="Remove them, or choose another --out")
        return _report(before, folder, kept=True)
    names = [shard.path.name for shard in shards_of(each.folder, source)]
    with no_empty_folders([folder]):
        with output_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with (
            locked(folder / ".lock", f"{each.dataset} {each.split}"),
            whole_or_nothing(folder / name for name in (*names, CROISSANT, MANIFEST)),
        ):
            sweep_temporaries(folder)  # of a run that was killed
            made = Made()
            steps = write_shards(each, rule, source, folder, made)
            for _ in track(steps, f"relabelling {each.dataset} {each.split}", len(each)):
                pass
            if not made.samples:
                first = made.skipped[0]["reason"]
                raise ShardError(f"no sample could be relabelled; the first: {first}", where=each.where)
            manifest = manifest_of(job, each, rule, source, made, wanted)
            write_croissant(folder, manifest)
            write_json(folder / MANIFEST, manifest)
    return _report(manifest, folder)


def _report(manifest: Mapping[str, Any], folder: Path, kept: bool = False) -> SplitReport:
    said = manifest["relabel"]
    return SplitReport(
        folder=folder,
        dataset=manifest["dataset"],
        split=manifest["split"],
        annotation_type=(said["source"]["annotation_type"], manifest["annotation_type"]),
        images=manifest["counts"]["written"],
        skipped=tuple((skip["path"], skip["reason"]) for skip in manifest["skipped"]),
        counts=said["counts"],
        open=tuple(label["name"] for label in said["labels"] if len(label["concepts"]) > 1),
        kept=kept,
    )
