"""Annotation files that say themselves what they are: JSON, XML, YAML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from posixpath import basename, dirname, splitext
from typing import Any
from urllib.parse import unquote, urlsplit

from labelmerge.errors import LayoutError, SampleError
from labelmerge.recipe.proposal import Proposal, indexed
from labelmerge.recipe.tree import Template, Tree, by_template, endings, split_lists, spread, template, words_of
from labelmerge.sharding.readers.shared.tables import Faults, NameById, Record, read_lists, reference
from labelmerge.sharding.readers.shared.xml import read_xml, stream_xml, text_of
from labelmerge.text import counted

_SMALL = 1 << 26  # bytes of a JSON that is read as a whole
_MOST_NAMES = 2000  # of listed images that are looked for
_MOST_FILES = 20_000  # of one image each that are read for their labels
_WITHOUT_AREA = ("line", "linestrip", "point", "points")


@dataclass
class _Coco:
    """What a COCO-like JSON holds."""

    path: str
    names: dict[int | str, str] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)
    used: set[int | str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    key_points: bool = False

    @property
    def kind(self) -> str:
        """``panoptic``, ``coco_instances`` or ``coco_boxes``."""
        if self.counts["panoptic"]:
            return "panoptic"
        return "coco_instances" if self.counts["segmentation"] * 2 >= self.counts["annotations"] else "coco_boxes"

    @property
    def classes(self) -> list[str]:
        """The names of its categories, without those that only stand above others."""
        return [name for number, name in self.names.items() if number in self.used or name not in self.parents]


def coco(tree: Tree) -> Iterator[Proposal]:
    """COCO's instances, boxes and panoptic JSON, Roboflow's, LVIS's."""
    found: dict[tuple[str, str, str], list[tuple[_Coco, Template, str, int]]] = {}
    for path in tree.ending(".json"):
        read = _read_coco(tree, path)
        placed = read and tree.folders_of_images(read.files, path)
        if not read or not placed:
            continue
        folder, parts = placed
        key = (template(path).text, template(folder).text, read.kind)
        found.setdefault(key, []).append((read, template(path), folder, parts))
    # COCO gives the people of its instances once more, in a file of their own with their key points.
    whole = {(images, kind) for (_, images, kind), files in found.items() if not _of_key_points(files)}
    for (place, images, kind), files in found.items():
        if _of_key_points(files) and (images, kind) in whole:
            continue
        splits = [(made.split or template(each).split, made.word or template(each).word) for _, made, each, _ in files]
        classes = indexed([name for read, *_ in files for name in read.classes])
        count = sum(read.counts["annotations"] for read, *_ in files)
        layout: dict[str, Any] = {"images": images, "annotations": place}
        what = {"coco_instances": "masks", "coco_boxes": "boxes", "panoptic": "panoptic segments"}[kind]
        if kind == "panoptic":
            folders = (tree.folders_of_images(read.masks, read.path) for read, *_ in files)
            masks = next((each for each in folders if each), None)
            if masks is None:
                continue
            layout["masks"] = template(masks[0]).text
        remarks = []
        named = {name.strip() for read, *_ in files for name in read.names.values()}
        if left := sorted(named - set(classes.values())):
            remarks.append(f"Left out as no class, since no annotation is of it: {', '.join(left[:5])}.")
        if (images, kind) in whole:
            remarks += [
                f"{other} is not read: it has the key points of some of the objects."
                for (other, *about), others in found.items()
                if tuple(about) == (images, kind) and _of_key_points(others)
            ]
        yield Proposal(
            what=f"COCO's JSON: {what} ({counted(count, 'annotation')})",
            reader=kind,
            kind={"coco_instances": "noisy_mask", "coco_boxes": "box", "panoptic": "mask"}[kind],
            layout=layout,
            options={"name_parts": 1} if files[0][3] and kind != "panoptic" else {},
            splits=words_of(splits),
            classes=classes,
            remarks=remarks,
        )


def _of_key_points(files: Sequence[tuple[_Coco, Template, str, int]]) -> bool:
    return all(read.key_points for read, *_ in files)


def _read_coco(tree: Tree, path: str) -> _Coco | None:
    found = _Coco(path)
    names = NameById()

    def category(record: Record) -> None:
        names(record)
        found.key_points |= "keypoints" in record
        found.parents.add(str(record.get("supercategory")))

    def image(record: Record) -> None:
        found.counts["images"] += 1
        if len(found.files) < _MOST_NAMES:
            name = str(record.get("file_name") or record["coco_url"]).replace("\\", "/")
            found.files.append(unquote(urlsplit(name).path.lstrip("/")) if "://" in name else name)

    def annotation(record: Record) -> None:
        found.counts["annotations"] += 1
        if "segments_info" in record:
            found.counts["panoptic"] += 1
            found.used.update(reference(info, "category_id") for info in record["segments_info"])
            if len(found.masks) < _MOST_NAMES:
                found.masks.append(str(record["file_name"]))
        else:
            found.counts["segmentation"] += bool(record.get("segmentation"))
            found.used.add(reference(record, "category_id"))

    try:
        lists = {"categories": category, "images": image, "annotations": annotation}
        read_lists(tree.root / path, lists, Faults("categories", "images", "annotations"))
    except LayoutError:
        return None
    found.names = names.names
    return found if found.names else None


# --- one JSON for each image ------------------------------------------------------------------------------------------


def _json_files(tree: Tree, fits: Callable[[dict[str, Any]], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON files of a kind with their contents; a folder whose first ones are of another kind is passed over."""
    misses: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for path in tree.ending(".json"):
        folder = dirname(path)
        if hits[folder] == 0 and misses[folder] > 3:
            continue
        file = tree.root / path
        try:
            content = json.loads(file.read_bytes().decode("utf-8-sig")) if file.stat().st_size <= _SMALL else None
        except (OSError, ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and fits(content):
            hits[folder] += 1
            yield path, content
        else:
            misses[folder] += 1


def _things(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [thing for thing in content[key] if isinstance(thing, dict)]


def labelme(tree: Tree) -> Iterator[Proposal]:
    """LabelMe's JSON."""
    fits = lambda content: isinstance(content.get("shapes"), list) and "imagePath" in content  # noqa: E731
    paths, labels, kinds = [], Counter[str](), Counter[str]()
    for path, content in islice(_json_files(tree, fits), _MOST_FILES):
        paths.append(path)
        for shape in _things(content, "shapes"):
            kind = str(shape.get("shape_type") or "polygon")
            if kind not in _WITHOUT_AREA and isinstance(shape.get("label"), str):
                labels[shape["label"]] += 1
                kinds[kind] += 1
    if not labels:
        return
    folders = by_template(dirname(path) for path in paths)
    boxes = set(kinds) == {"rectangle"}
    yield Proposal(
        what=f"LabelMe's JSON: {_counted(kinds)} in {counted(len(paths), 'file')}",
        reader="labelme",
        kind="box" if boxes else "noisy_mask",
        layout={"annotations": [f"{folder}/*.json" if folder else "*.json" for folder in folders]},
        splits=words_of((split, word) for found in folders.values() for split, (word, _) in found.items()),
        classes=indexed(sorted(labels)),
    )


def supervisely(tree: Tree) -> Iterator[Proposal]:
    """Supervisely's projects."""
    fits = lambda content: isinstance(content.get("objects"), list) and isinstance(content.get("size"), dict)  # noqa: E731
    paths, labels, kinds = [], Counter[str](), Counter[str]()
    for path, content in islice(_json_files(tree, fits), _MOST_FILES):
        if basename(dirname(path)) == "ann":
            paths.append(path)
            for thing in _things(content, "objects"):
                if isinstance(thing.get("classTitle"), str):
                    labels[thing["classTitle"]] += 1
                    kinds[str(thing.get("geometryType"))] += 1
    if not labels:
        return
    named = set(basename(path) for path in paths)
    whole = any(splitext(name)[0] in tree.by_name for name in named)  # a.jpg.json, and not a.json
    folders = by_template(dirname(dirname(path)) for path in paths)
    several = len(folders) > 1
    base = "*" if several else next(iter(folders))
    prefix = f"{base}/" if base else ""
    images = [f"{prefix}img/*"] if whole else [f"{prefix}img/*{ending}" for ending in endings(tree.images)]
    place = "{1}/ann/{2}.json" if several else f"{prefix}ann/{{stem}}.json"
    yield Proposal(
        what=f"a Supervisely project: {_counted(kinds)} in {counted(len(paths), 'file')}",
        reader="supervisely",
        kind="box" if set(kinds) == {"rectangle"} else "noisy_mask",
        layout={"images": images, "annotations": place},
        splits=words_of(
            (split, word) for found in folders.values() for split, (word, _) in found.items() if not several
        ),
        classes=indexed(sorted(labels)),
    )


def _plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}es" if kind.endswith("x") else f"{kind}s"


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(counted(count, kind, plural=_plural(kind)) for kind, count in kinds.most_common(4))


# --- XML --------------------------------------------------------------------------------------------------------------


def voc(tree: Tree) -> Iterator[Proposal]:
    """Pascal VOC's XML."""
    paths, labels, origin = [], Counter[str](), False
    for path in spread(tree.ending(".xml"), _MOST_FILES):
        try:
            root = read_xml(tree.root / path)
        except SampleError:
            continue
        if root.tag == "annotation":
            paths.append(path)
            for element in root.findall("object"):
                if name := text_of(element, "name"):
                    labels[name] += 1
                origin = origin or "0" in (element.findtext("bndbox/xmin"), element.findtext("bndbox/ymin"))
    if not labels:
        return
    stems = {splitext(basename(path))[0]: path for path in paths}
    images = [path for path in tree.images if splitext(basename(path))[0] in stems]
    if not images:
        return
    folders = by_template(dirname(path) for path in images)
    folder = next(iter(folders))
    annotations = template(dirname(stems[splitext(basename(images[0]))[0]])).text
    layout: dict[str, Any] = {
        "images": [f"{folder}/*{ending}" if folder else f"*{ending}" for ending in endings(images)],
        "annotations": f"{annotations}/{{stem}}.xml" if annotations else "{stem}.xml",
    }
    splits = words_of((split, word) for split, (word, _) in folders[folder].items())
    lists = split_lists(tree, stems, "Main")
    if lists is not None and "{split}" not in folder:
        layout["list"], splits = lists
    yield Proposal(
        what=f"Pascal VOC's XML: {counted(sum(labels.values()), 'box', 'boxes')} in {counted(len(paths), 'file')}",
        reader="voc_xml",
        kind="box",
        layout=layout,
        options={"first_pixel": 0} if origin else {},
        splits=splits,
        classes=indexed(sorted(labels)),
        remarks=["Some boxes begin at 0, so coordinates are taken to count from 0, not from 1."] if origin else [],
    )


def cvat(tree: Tree) -> Iterator[Proposal]:
    """CVAT's XML for images."""
    for path in tree.ending(".xml"):
        names, subsets, labels, kinds = [], Counter[str](), [], Counter[str]()
        try:
            for element in stream_xml(tree.root / path, "annotations", "meta", "image"):
                if element.tag == "meta":
                    labels += [label.findtext("name") or "" for label in element.iter("label")]
                    continue
                subsets[element.get("subset") or ""] += 1
                names.append(element.get("name", "").replace("\\", "/"))
                for shape in element:
                    kinds[shape.tag] += 1
                    labels.append(shape.get("label", ""))
        except LayoutError:
            continue
        placed = tree.folders_of_images(names[:_MOST_NAMES], path)
        if placed is None or not any(labels):
            continue
        words = [(template(subset).split, subset) for subset in subsets if template(subset).split]
        made, folder = template(path), template(placed[0])
        layout: dict[str, Any] = {"images": folder.text, "annotations": made.text}
        if words:
            layout["subset"] = "{split}"
        yield Proposal(
            what=f"CVAT's XML for images: {_counted(kinds)} in {counted(len(names), 'image')}",
            reader="cvat",
            kind="box" if set(kinds) == {"box"} else "noisy_mask",
            layout=layout,
            options={"name_parts": placed[1]} if placed[1] else {},
            splits=words_of(words or [(made.split, made.word), (folder.split, folder.word)]),
            classes=indexed(labels),
        )


# --- YOLO -------------------------------------------------------------------------------------------------------------


def yolo(tree: Tree) -> Iterator[Proposal]:
    """YOLO with a data.yaml, or with lines of numbers where label files would be."""
    import yaml

    from labelmerge.sharding.readers.yolo import label_paths

    there = set(tree.ending(".txt"))
    labels = [path for image in tree.images if (path := next((p for p in label_paths(image) if p in there), None))]
    if not labels:
        return
    fields, numbers = _yolo_fields(tree.root, spread(labels, 500))
    if not fields:
        return
    boxes = fields["box"] >= fields["polygon"]
    what = f"YOLO: {'boxes' if boxes else 'polygons'} in {counted(len(labels), 'label file')}"
    found = False
    for path in tree.ending(".yaml", ".yml"):
        try:
            content = yaml.load((tree.root / path).read_bytes().decode("utf-8-sig"), Loader=yaml.BaseLoader)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        names = content.get("names") if isinstance(content, dict) else None
        if not isinstance(names, (list, dict)) or not any(content.get(key) for key in ("train", "val", "test")):
            continue
        found = True
        listed = names.values() if isinstance(names, dict) else names
        yield Proposal(
            what=what,
            reader="yolo",
            kind="box" if boxes else "noisy_mask",
            layout={"data": path},
            splits={split: "" for split in ("train", "val", "test") if not content.get(split)},
            classes=indexed([name for name in listed if isinstance(name, str)]),
        )
    if found:
        return
    names_file = next(
        (path for path in tree.paths if basename(path) in ("classes.txt", "obj.names", "labels.txt")), None
    )
    images = [image for image in tree.images if any(p in there for p in label_paths(image))]
    folders = by_template(dirname(path) for path in images)
    layout: dict[str, Any] = {
        "images": [f"{folder}/*{end}" if folder else f"*{end}" for folder in folders for end in endings(images)]
    }
    classes = {number: f"class {number}" for number in range(max(numbers, default=0) + 1)}
    if names_file is not None:
        layout["class_names"] = names_file
        lines = (tree.root / names_file).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        classes = indexed([line for line in lines if line.strip()])
    yield Proposal(
        what=what,
        reader="yolo",
        kind="box" if boxes else "noisy_mask",
        layout=layout,
        splits=words_of((split, word) for each in folders.values() for split, (word, _) in each.items()),
        classes=classes,
        named=names_file is not None,
    )


def _yolo_fields(root: Path, paths: list[str] | Any) -> tuple[Counter[str], set[int]]:
    """How many lines of label files are boxes and polygons, and their class numbers; none where some are neither."""
    fields: Counter[str] = Counter()
    numbers: set[int] = set()
    for path in paths:
        try:
            lines = (root / path).read_text(encoding="utf-8-sig").splitlines()
            for line in filter(str.strip, lines):
                first, *rest = (float(part) for part in line.split())
                fields["box" if len(rest) == 4 else "polygon" if len(rest) >= 6 else "other"] += 1
                numbers.add(int(first))
        except (OSError, ValueError):
            fields["other"] += 1
    return (fields if fields["other"] * 10 <= sum(fields.values()) else Counter()), numbers


DOCUMENTS: tuple[Callable[[Tree], Iterator[Proposal]], ...] = (coco, yolo, labelme, voc, cvat, supervisely)
