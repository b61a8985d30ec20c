"""Look at a folder, say what it is, and write its recipe: the whole of `labelmerge recipe`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labelmerge.catalog import SPLITS, dataset_names, load_recipe
from labelmerge.descriptions import write_descriptions
from labelmerge.errors import LabelmergeError, LayoutError, OutputError, SampleError, UsageError
from labelmerge.files import whole_or_nothing, write_text
from labelmerge.recipe.columns import columns
from labelmerge.recipe.documents import DOCUMENTS
from labelmerge.recipe.known_names import described
from labelmerge.recipe.pictures import PICTURES, images_alone
from labelmerge.recipe.proposal import Proposal
from labelmerge.recipe.tree import Tree, spread
from labelmerge.sharding.make import Tally, make_sample
from labelmerge.sharding.plan import Plan, make_plan
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.layout import exists, fill, mask_wildcards, strings
from labelmerge.sharding.source.locate import NoLabels, open_source
from labelmerge.sharding.source.source import UPRIGHT, Source
from labelmerge.text import counted, some

_TRIED, _MOST_TRIED = 3, 20  # samples of each split that are made to see that the recipe works
_SHOWN = 3  # faults of a split
_MAX_NAME = 60
_BINARY = 2
_LOOKED_FOR = (
    "COCO JSON (instances, panoptic, Roboflow, LVIS), YOLO (data.yaml or label files), LabelMe JSON, Pascal VOC XML, "
    "CVAT XML, Supervisely, Hugging Face data (Parquet, save_to_disk), index or colour masks beside images (as in "
    "ADE20K and Cityscapes, too), polygon JSON"
)


@dataclass(frozen=True)
class Tried:
    """What became of a split: images that may become samples, files that can't, and what went wrong with a few."""

    samples: int
    skipped: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What a folder is.

    Attributes:
        proposal: how it is read.
        splits: what each split holds.
        alike: shipped datasets that lie on disk just so.
        described: whether the classes got the descriptions of a shipped dataset.
        recipe, descriptions: the files that were written.
    """

    proposal: Proposal
    splits: Mapping[str, Tried]
    alike: tuple[str, ...]
    described: bool
    recipe: Path
    descriptions: Path


def find(folder: Path, reader: str | None = None, annotations: str | None = None) -> Proposal:
    """How a folder is read.

    Args:
        folder: what to look at.
        reader: which of several, by the name of its reader; None: the only one.
        annotations: which of several, by part of the path of its annotations; None: the only one.

    Raises:
        LayoutError: it is nothing known, or several things at once; says what was looked for, or found.
        UsageError: no such folder.
    """
    tree = Tree(folder)
    found = [proposal for detect in (*DOCUMENTS, columns, *PICTURES) for proposal in detect(tree)]
    # The pictures of a panoptic JSON look like colour masks.
    listed_masks = {f"{each.layout['masks']}/" for each in found if each.reader == "panoptic"}
    found = [each for each in found if each.reader != "colour_png" or _folder_of_masks(each) not in listed_masks]
    if not found and not tree.ending(".json", ".xml", ".txt", ".yaml", ".yml", ".parquet", ".arrow", ".mat"):
        found = list(images_alone(tree))
    if reader == "images":
        found = list(images_alone(tree))
    elif reader is not None:
        found = [proposal for proposal in found if proposal.reader == reader]
    if found and annotations is not None:
        there = some((_where(each) for each in found), 4)
        found = [proposal for proposal in found if annotations in _where(proposal)]
        if not found:
            raise LayoutError(f"no annotations here have {annotations!r} in their path; found {there}", where=folder)
    if not found:
        have = some((path for path in tree.paths), 4) or "nothing"
        wanted = f"nothing for the reader {reader!r} was found" if reader else f"looked for {_LOOKED_FOR}"
        raise LayoutError(
            f"is not a dataset in a format that can be recognised: {wanted}; it holds {have}",
            where=folder,
            fix=_shipped(folder) or "For images alone: --reader images. docs/recipes.md tells how a recipe is written",
        )
    if len(found) > 1:
        listed = "; ".join(f"{each.reader}: {each.what} ({_where(each)})" for each in found[:6])
        fix = "Say which: --reader NAME"
        if len({each.reader for each in found}) < len(found):
            fix = "Say which: --annotations with part of its path"
        fix = f"{fix}. {_shipped(folder)}".rstrip(". ")
        raise LayoutError(f"may be read in {len(found)} ways: {listed}", where=folder, fix=fix)
    return found[0]


def _folder_of_masks(proposal: Proposal) -> str:
    place = proposal.layout["masks"]
    return str(place if isinstance(place, str) else place[0]).partition("{stem}")[0]


def _where(proposal: Proposal) -> str:
    keys = ("annotations", "masks", "polygons", "data", "images")
    place = next(proposal.layout[key] for key in keys if key in proposal.layout)
    return place if isinstance(place, str) else str(place[0])


def make(
    folder: Path,
    out: Path,
    name: str | None = None,
    reader: str | None = None,
    overwrite: bool = False,
    annotations: str | None = None,
) -> Found:
    """Write ``<name>.toml`` and ``<name>.csv`` for a folder into `out`.

    Args:
        folder: the dataset.
        out: where the two files go.
        name: the dataset's; None: after the folder.
        reader, annotations: see `find`.
        overwrite: replace files that are there.

    Raises:
        LayoutError, UsageError: as `find`; also where nothing of what was found can be read.
        OutputError: a file is there already, or can't be written.
    """
    name = named_after(folder) if name is None else name
    if not re.fullmatch(r"[a-z0-9_]{1,60}", name):
        raise UsageError(f"name {name!r}: it must be lower case letters, digits and '_', {_MAX_NAME} at most")
    files = out / f"{name}.toml", out / f"{name}.csv"
    for file in files:
        if file.exists() and not overwrite:
            raise OutputError(
                "is there already, and may have been edited",
                where=file,
                fix="Give --overwrite, another --name or --out",
            )
    proposal = find(folder, reader, annotations)
    with tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch:
        trial = Path(scratch)
        files_tried = trial / f"{name}.toml", trial / f"{name}.csv"
        _write(proposal, name, *files_tried)
        try:
            splits, faults = _try(files_tried[0], folder)
        except LayoutError as unreadable:
            if f"options.{UPRIGHT}" not in str(unreadable) or UPRIGHT in proposal.options:
                raise
            proposal.options[UPRIGHT] = True
            proposal.remarks.append(
                "Pictures are turned by their EXIF orientation: only so do they have the sizes of their masks."
            )
            _write(proposal, name, *files_tried)
            splits, faults = _try(files_tried[0], folder)
        # Masks of a thing and its background are laid out as many datasets are, and are none of them.
        alike = _alike(folder) if len(proposal.classes) > _BINARY else ()
    for split, error in faults.items():
        proposal.splits[split] = ""
        proposal.remarks.append(f"{split} is left out: {error.what}.")
    called = described(proposal.classes)[1]
    if called is not None:
        proposal.remarks.append(f"The descriptions are those of {called}, which has all of these names: check them.")
    _write(proposal, name, *files)
    return Found(proposal, splits, alike, called is not None, *files)


def named_after(folder: Path) -> str:
    """A dataset's name, after its folder."""
    words = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return words[:_MAX_NAME].rstrip("_") or "my_dataset"


def _write(proposal: Proposal, name: str, recipe: Path, descriptions: Path) -> None:
    rows, _ = described(proposal.classes)
    with whole_or_nothing((descriptions, recipe)):
        write_descriptions(descriptions, rows)
        write_text(recipe, proposal.toml(name))


def _try(path: Path, folder: Path) -> tuple[dict[str, Tried], dict[str, LabelmergeError]]:
    """Read the folder by its new recipe: list every split, and make a few samples; what can't be read, and why.

    Raises LayoutError where nothing can be read.
    """
    recipe = load_recipe(path)
    found: dict[str, Tried] = {}
    faults: dict[str, LabelmergeError] = {}
    for split in SPLITS:
        with tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch:
            try:
                with make_plan(recipe, folder, split, Path(scratch)) as plan:
                    said = _samples(plan)
                    found[split] = Tried(plan.samples, len(plan.skips), tuple(said[:_SHOWN]))
            except NoLabels:
                continue
            except LabelmergeError as error:
                faults[split] = error
                continue
    if not found:
        why = next(iter(faults.values())) if faults else LayoutError("holds no split", where=folder)
        raise LayoutError(f"looks like {recipe.about.splitlines()[0]} But it can't be read: {why}")
    return found, faults


def _samples(plan: Plan) -> list[str]:
    """Make a few samples; what went wrong with others on the way. Raises LayoutError where none of many can be made."""
    wrong, made = [], 0
    for number, item in spread(plan.task(0).items, _MOST_TRIED):
        try:
            make_sample(plan.source, item, f"{number}", plan.options, Tally())
            made += 1
        except SampleError as error:
            wrong.append(f"{item.path}: {error.what}")
        if made == _TRIED:
            break
    wrong += [f"{skip.path}: {skip.reason}" for skip in plan.skips]
    if not made:
        raise LayoutError(f"none of the images tried can be used ({some(wrong, 2, separator='; ')})")
    return wrong


def _shipped(folder: Path) -> str:
    return _said_alike(_alike(folder))


def _said_alike(alike: Sequence[str]) -> str:
    return f"It lies on disk as {' or '.join(alike[:3])}: if it is that, use that name and no recipe" if alike else ""


def _alike(folder: Path) -> tuple[str, ...]:
    """The shipped datasets that lie on disk as this folder does, with all that their layouts name."""
    found = []
    for name in dataset_names():
        with suppress(LabelmergeError):
            source = open_source(load_recipe(name), folder, "train")
            images = strings(source.layout, "images")
            if images and all(_there(source, key, images) for key in READERS[source.reader].KEYS.layout):
                found.append(name)
    return tuple(found)


def _there(source: Source, key: str, images: Sequence[str]) -> bool:
    """Whether some file or folder is where one of a layout's patterns says."""
    return any(
        exists(source.root / base, mask_wildcards(fill(pattern, {"split": source.word}), image))
        for base in source.bases
        for pattern in strings(source.layout, key)
        for image in images
    )


def summary(found: Found, folder: Path) -> list[str]:
    """What a person is told: what it is, what was found, what to do next."""
    proposal = found.proposal
    lines = [f"{folder}: {proposal.what}.", f"reader: {proposal.reader}, annotation_type: {proposal.kind}"]
    lines += [f"{key}: {', '.join(v) if isinstance(v, list) else v}" for key, v in proposal.layout.items()]
    for split, tried in found.splits.items():
        left = f", {counted(tried.skipped, 'file')} left out" if tried.skipped else ""
        lines.append(f"{split}: {counted(tried.samples, 'image')}{left}")
        lines += [f"  can't be used: {fault}" for fault in tried.faults]
    lines.append(f"classes: {len(proposal.classes)} ({some(proposal.classes.values(), 8)})")
    lines += proposal.remarks
    if not proposal.named:
        lines.append(f"Nothing says what the classes are called: write their names into {found.descriptions}.")
    if found.alike:
        lines.append(f"{_said_alike(found.alike)}.")
    split = next(iter(found.splits))
    complete = "" if found.described else "; complete the descriptions there"
    lines.append(f"Wrote {found.recipe} and {found.descriptions}{complete}. Next:")
    lines.append(f"  labelmerge shard {found.recipe} --root {folder} --split {split} --out shards")
    return lines
