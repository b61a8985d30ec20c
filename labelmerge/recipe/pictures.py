"""Pictures beside pictures: index masks, colour masks, polygon JSON in Cityscapes' style; and images alone."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, commonprefix, dirname, splitext
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.recipe.class_lists import ClassList, class_lists
from labelmerge.recipe.proposal import Proposal, indexed
from labelmerge.recipe.tree import Tree, endings, split_lists, split_of, spread, template, words_of
from labelmerge.sharding.pictures.images import decode_exact, indices, packed_colours, read_file
from labelmerge.text import counted, some

ROLE = re.compile(
    r"(mask|label|annot|segm|(?<![a-z])seg(?![a-z])|(?<![a-z])gt|ground.?truth|instance|panoptic|semantic)", re.I
)
_IMAGE_ROLE = re.compile(r"(image|img|photo|rgb|leftimg8bit|jpeg|picture)", re.I)
_LAST = re.compile(r"(instance|colou?r|panoptic|_vis)", re.I)
_FIRST = re.compile(r"(train_?ids?)", re.I)
_SUFFIX = re.compile(
    r"(?:[_.-](?:leftImg8bit|gt(?:Fine|Coarse)?|labels?|labelIds|labelTrainIds|train_?ids?|instanceIds|colou?rs?|masks?|"
    r"seg|segm|segmentation|annotations?|polygons|image|img|rgb|L))+$",
    re.I,
)
_VOID = ("void", "unlabeled", "unlabelled", "ignore", "ignored", "no label")
_MOST_MASKS = 300  # whose values are looked at
_FEW = 64  # different values or colours in one picture of a photo are more
_IGNORE = 255
_EXACT = (".png", ".bmp", ".tif", ".tiff", ".gif")
_WIDE, _GAP = 32, 4  # values that go further, and lie so far apart, are stretched over what there is


@dataclass
class Series:
    """Pictures (or JSON files) of one folder, or of one in each split, whose names end alike.

    Attributes:
        pattern: with ``{split}``, and ``*`` for folders below that differ between splits; without the name.
        suffix: what all stems end in.
        files: path by (split, folder below, stem without the suffix).
        words: the splits with their words.
    """

    pattern: str
    suffix: str
    files: dict[tuple[str | None, str, str], str] = field(default_factory=dict)
    words: set[tuple[str | None, str | None]] = field(default_factory=set)

    @property
    def keys(self) -> set[tuple[str | None, str, str]]:
        return set(self.files)

    @property
    def paths(self) -> list[str]:
        return sorted(self.files.values())

    def place(self, ending: str) -> str:
        """The pattern of its files with one ending, as `layout.images` has it."""
        return f"{self.pattern}*{self.suffix}{ending}"

    def of_stem(self, images: Series, ending: str) -> str:
        """The pattern of its files for the images of another series, as `layout.masks` has it."""
        base = self.pattern.removesuffix("*/") if "*" in images.pattern else self.pattern
        return f"{base}{{stem}}{self.suffix}{ending}"


def all_series(paths: Sequence[str]) -> list[Series]:
    """Files as series, the longest first."""
    below: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
    parts = []
    for path in paths:
        folder = dirname(path)
        made = template(folder)
        head, inner = made.text, ""
        if made.split is not None:
            pieces = made.text.split("/")
            place = next(number for number, piece in enumerate(pieces) if "{split}" in piece)
            head, inner = "/".join(pieces[: place + 1]), "/".join(pieces[place + 1 :])
        below[head].add((made.split, inner))
        parts.append((path, head, inner, made.split, made.word))
    found: dict[tuple[str, str], Series] = {}
    for path, head, inner, split, word in parts:
        stem = splitext(basename(path))[0]
        match = _SUFFIX.search(stem)
        suffix = match[0] if match and match.start() > 0 else ""
        varies = inner and "/" not in inner and not ROLE.search(inner) and not _IMAGE_ROLE.search(inner)
        varies = varies and len({each for each in below[head]}) > 1 and not _in_every_split(below[head], inner)
        folder = f"{head}/*" if varies else "/".join(filter(None, (head, inner)))
        series = found.setdefault((folder, suffix), Series(f"{folder}/" if folder else "", suffix))
        series.files[split, inner if varies else "", stem[: len(stem) - len(suffix)]] = path
        series.words.add((split, word))
    return sorted(found.values(), key=lambda series: -len(series.files))


def _in_every_split(below: set[tuple[str | None, str]], inner: str) -> bool:
    splits = {split for split, _ in below}
    return len(splits) > 1 and all((split, inner) in below for split in splits)


# --- masks ------------------------------------------------------------------------------------------------------------


def masks(tree: Tree) -> Iterator[Proposal]:
    """Index masks and colour masks, each with its image."""
    series = all_series(tree.images)
    looks = {id(each): _looks(tree.root, each) for each in series}
    candidates: list[tuple[tuple[bool, bool, int, bool], Series, Series]] = []
    for one in series:
        if looks[id(one)] not in ("index", "colour") or not all(path.lower().endswith(_EXACT) for path in one.paths):
            continue
        for other in series:
            shared = len(one.keys & other.keys)
            name, called = _names_apart(one, other)
            if other is one or 2 * shared < len(one.keys) or ROLE.search(called):
                continue
            if looks[id(other)] == "photo" or _IMAGE_ROLE.search(called) or ROLE.search(name):
                rank = bool(_LAST.search(name)), looks[id(one)] != "index", -shared, not _FIRST.search(name)
                candidates.append((rank, one, other))
    if not candidates:
        return
    _, chosen, images = min(candidates, key=lambda candidate: candidate[0])
    proposal = _of_masks(tree, chosen, images, looks[id(chosen)])
    others = {one.place("") for _, one, _ in candidates if one is not chosen}
    if proposal is not None:
        if others:
            proposal.remarks.append(f"Other masks that lie there are not read: {', '.join(sorted(others)[:4])}.")
        yield proposal


def _names_apart(one: Series, other: Series) -> tuple[str, str]:
    """What two series are called, from the first folder on that they do not share: its name is no one's role."""
    names = one.pattern + one.suffix, other.pattern + other.suffix
    shared = commonprefix([name.rpartition("/")[0] + "/" for name in names]).rpartition("/")[0]
    return names[0][len(shared) :], names[1][len(shared) :]


def _looks(root: Path, series: Series) -> str:
    """``index``, ``colour`` or ``photo``; ``?`` where nothing can be read."""
    verdicts = Counter[str]()
    for path in spread(series.paths, 4):
        try:
            picture = decode_exact(read_file(root / path), root / path)
        except SampleError as error:
            verdicts["photo" if "guesses" in error.what else "?"] += 1
            continue
        values = np.asarray(picture)
        if values.ndim == 2:
            verdicts["index" if len(np.unique(values)) <= _most(values) else "photo"] += 1
        else:
            colours = np.unique(values.reshape(-1, values.shape[-1]), axis=0)
            verdicts["colour" if len(colours) <= min(_FEW, _most(values[..., 0])) else "photo"] += 1
    return verdicts.most_common(1)[0][0]


def _most(values: npt.NDArray[Any]) -> int:
    """How many different values a mask of this size may have: photos of few pixels have few, too."""
    return max(2, min(_FEW * 3, values.size // 16))


def _of_masks(tree: Tree, chosen: Series, images: Series, look: str) -> Proposal | None:
    values = _values(tree.root, chosen.paths, look)
    if not values:
        return None
    ends = endings(chosen.paths)
    # Of the same names there may be other pictures, such as the parts of ADE20K's objects.
    pictures = [path for key, path in images.files.items() if key in chosen.files]
    places = [chosen.of_stem(images, ending) for ending in ends]
    proposal = Proposal(
        what=f"{'index' if look == 'index' else 'colour'} masks, one beside each image",
        reader="index_png" if look == "index" else "colour_png",
        kind="mask",
        layout={
            "images": [images.place(ending) for ending in endings(pictures)],
            "masks": places if len(places) > 1 else places[0],
        },
        splits=words_of(images.words),
        classes={},
        named=False,
    )
    lists_of_images = split_lists(tree, {stem for _, _, stem in images.keys}, "Segmentation")
    if lists_of_images is not None and "{split}" not in images.pattern and not images.suffix:
        proposal.layout["list"], proposal.splits = lists_of_images
    seen = min(len(chosen.files), _MOST_MASKS)
    lists = class_lists(tree)
    if look == "colour":
        name_colours(proposal, values, lists)
    else:
        name_values(proposal, values, lists, suffix=chosen.suffix)
    proposal.remarks.append(f"Values are those of {seen:,} of {len(chosen.files):,} masks.")
    return proposal


def _values(root: Path, paths: Sequence[str], look: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for path in spread(paths, _MOST_MASKS):
        try:
            data = read_file(root / path)
            stored = indices(data, root / path) if look == "index" else packed_colours(data, root / path)
        except SampleError:
            continue
        values, counts = np.unique(stored, return_counts=True)
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return found


def _share(values: Counter[int], value: int) -> str:
    return f"{values[value] / sum(values.values()):.1%} of the pixels"


def name_values(proposal: Proposal, values: Counter[int], lists: list[ClassList], suffix: str = "") -> None:
    """Say what index masks of these values hold, with the names of a list that fits."""
    there = sorted(values)
    rest = [value for value in there if value != _IGNORE]
    if there in ([0, _IGNORE], [_IGNORE]):
        proposal.what = "binary masks of 0 and 255, one beside each image"
        proposal.classes = {0: "background", 1: "foreground"}
        proposal.ids = {"map": {"0": "background", "255": "foreground"}}
        proposal.remarks.append(f"255 is taken as a class: it has {_share(values, _IGNORE)}, and there is no other.")
        return
    if _name_by_number(proposal, values, lists):
        return
    if _IGNORE in values:
        proposal.ids["ignore"] = [_IGNORE]
        proposal.remarks.append(f"255 is taken as no label: {_share(values, _IGNORE)}.")
    elif max(rest) < _IGNORE:
        proposal.ids["ignore"] = [_IGNORE]
    fitting = [each for each in lists if each.colours is None and not each.has_gaps and max(rest) <= len(each.names)]
    exact = [each for each in fitting if max(rest) < len(each.names)]
    for each in (*exact, *fitting):
        offset = 0 if each in exact and not each.from_one else -1
        if offset < 0:
            proposal.ids = {**proposal.ids, "ignore": [0, *proposal.ids.get("ignore", [])], "offset": -1}
            proposal.remarks.append(f"0 is taken as no label, and class 1 as the first: {_share(values, 0)} are 0.")
        proposal.classes = dict(enumerate(each.names))
        proposal.named = True
        proposal.remarks.append(f"Names are those of {each.path}.")
        return
    ends = ", ".join(f"{value}: {_share(values, value)}" for value in dict.fromkeys((rest[0], rest[-1])))
    proposal.remarks.append(
        f"Where a value means no label, often the first or the last ({ends}), put it into ids.ignore."
    )
    gaps = np.diff(rest)
    if max(rest) < _WIDE or not len(gaps) or gaps.min() < _GAP or suffix.lower().endswith("ids"):
        proposal.classes = {value: f"class {value}" for value in range(max(rest) + 1)}
        return
    proposal.classes = {place: f"class {value}" for place, value in enumerate(rest)}
    proposal.ids["map"] = {str(value): place for place, value in enumerate(rest)}


def _name_by_number(proposal: Proposal, values: Counter[int], lists: list[ClassList]) -> bool:
    """Take the classes of a list that numbers them with gaps and has all values but 0 and 255; whether there is one."""
    for each in lists:
        if each.colours is not None or each.numbers is None or not each.has_gaps:
            continue
        names = dict(zip(each.numbers, each.names, strict=True))
        void = {value for value, name in names.items() if name.strip().casefold() in _VOID}
        if not set(values) <= names.keys() | {0, _IGNORE} or not names.keys() - void:
            continue
        ignored = sorted(void | ({_IGNORE} | values.keys() & {0}) - names.keys())
        proposal.ids["ignore"] = ignored
        proposal.classes = {value: name for value, name in names.items() if value not in ignored}
        proposal.named = True
        proposal.remarks.append(f"Names and numbers are those of {each.path}.")
        proposal.remarks += [
            f"{value} is taken as no label: {_share(values, value)}." for value in ignored if values[value]
        ]
        return True
    return False


def name_colours(proposal: Proposal, values: Counter[int], lists: list[ClassList]) -> None:
    """Say what masks of these colours hold, with the names of a list that fits."""

    def written(packed: int) -> str:
        return f"{packed >> 16} {packed >> 8 & 255} {packed & 255}"

    there = {written(value): count for value, count in values.items()}
    known = [each for each in lists if each.colours is not None and set(there) <= set(each.colours)]
    names: list[str]
    colours: list[str]
    if known:
        names, colours = list(known[0].names), list(known[0].colours or ())
        proposal.named = True
        proposal.remarks.append(f"Names and colours are those of {known[0].path}.")
    else:
        colours = [written(value) for value, _ in values.most_common()]
        names = [f"colour {colour}" for colour in colours]
        if len(colours) == 2 and set(colours) == {"0 0 0", "255 255 255"}:
            names = ["background" if colour == "0 0 0" else "foreground" for colour in colours]
        proposal.remarks.append("A colour that means no label goes from ids.map into ids.ignore.")
    void = [colour for colour, name in zip(colours, names, strict=True) if name.strip().casefold() in _VOID]
    if void and len(void) < len(colours):
        proposal.ids["ignore"] = void
    kept = {colour: name.strip() for colour, name in zip(colours, names, strict=True) if colour not in void}
    proposal.classes = indexed(list((kept or dict(zip(colours, names, strict=True))).values()))
    places = {name.casefold(): name for name in proposal.classes.values()}
    proposal.ids["map"] = {colour: places[name.casefold()] for colour, name in kept.items()}


# --- others -----------------------------------------------------------------------------------------------------------


def polygons(tree: Tree) -> Iterator[Proposal]:
    """Polygon JSON in the style of Cityscapes."""
    for one in all_series(tree.ending(".json")):
        labels = Counter[str]()
        for path in spread(one.paths, _MOST_MASKS):
            try:
                content = json.loads(read_file(tree.root / path))
                labels.update(str(thing["label"]) for thing in content["objects"] if "polygon" in thing)
                _ = content["imgHeight"]
            except (SampleError, ValueError, KeyError, TypeError, RecursionError):
                continue
        images = max(
            (each for each in all_series(tree.images) if not ROLE.search(_names_apart(one, each)[1])),
            key=lambda each: len(each.keys & one.keys),
            default=None,
        )
        if labels and images is not None and 2 * len(images.keys & one.keys) >= len(one.keys):
            yield Proposal(
                what=f"polygon JSON in Cityscapes' style, {counted(len(one.files), 'file')}",
                reader="polygons",
                kind="mask",
                layout={
                    "images": [images.place(ending) for ending in endings(images.paths)],
                    "polygons": one.of_stem(images, splitext(one.paths[0])[1]),
                },
                splits=words_of(images.words),
                classes=indexed(sorted(labels)),
            )


def images_alone(tree: Tree) -> Iterator[Proposal]:
    """Pictures and nothing else."""
    if not tree.images:
        return
    folders = {template(dirname(path)).text: None for path in tree.images}
    deep = len(folders) > 3
    places = ["**/*"] if deep else [f"{folder}/*" if folder else "*" for folder in folders]
    yield Proposal(
        what=f"images alone, {len(tree.images):,}",
        reader="images",
        kind="image",
        layout={"images": [f"{place}{ending}" for place in places for ending in endings(tree.images)]},
        splits={"val": "", "test": ""}
        if deep
        else words_of((split_of(dirname(path)), template(dirname(path)).word) for path in tree.images),
        classes={0: "class 0"},
        named=False,
        remarks=["The classes are those that the images may show; none of them is in the files.", *_masks_among(tree)],
    )


def _masks_among(tree: Tree) -> Iterator[str]:
    """What to say of pictures that look like masks where all are taken for images."""
    places = [each.place("") for each in all_series(tree.images) if _looks(tree.root, each) in ("index", "colour")]
    if places:
        yield f"Some look like masks, with no images of their names: {some(places, 3)}."


PICTURES: tuple[Callable[[Tree], Iterator[Proposal]], ...] = (masks, polygons)
