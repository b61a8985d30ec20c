"""The same scene as annotation tools save it: LabelMe, Pascal VOC, CVAT, Supervisely, YOLO, COCO."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.sharding.outcome import ShardReport
from labelmerge.sharding.shard import check
from labelmerge.sharding.source.source import Annotation

from .listing import Listed, listed

NAMES = ("road", "car", "traffic light")
SIZE = (30, 40)

Points = Sequence[tuple[float, float]]
Scene = list[tuple[str, Points]]


@dataclass
class Recipe:
    """A recipe's text without its first lines, and the reader's name."""

    reader: str
    rest: str


def scene(seed: int, count: int = 5) -> Scene:
    """Labels and polygons of whole coordinates, the largest first, no two of one area: every painting order agrees."""
    random = np.random.default_rng(seed)
    things: dict[float, tuple[str, Points]] = {}
    while len(things) < count:
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 8)))
        centre, radius = random.uniform((8, 6), (32, 24)), random.uniform(4, 14, len(angles))
        xy = np.round(centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))
        xy = np.clip(xy, 0, (SIZE[1], SIZE[0]))
        covered = inside([(float(x), float(y)) for x, y in xy])
        area = float(covered.sum())
        if area > 4 and all(abs(area - other) > 8 for other in things):
            things[area] = (str(random.choice(NAMES)), [(float(x), float(y)) for x, y in xy])
    return [things[area] for area in sorted(things, reverse=True)]


def inside(points: Points, size: tuple[int, int] = SIZE) -> npt.NDArray[np.bool_]:
    """[H, W] of the pixels whose centres lie in a polygon: how often a ray to the right meets its edges."""
    found = np.zeros(size, dtype=np.bool_)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, crossings = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    crossings += 1
            found[row, column] = crossings % 2 == 1
    return found


def near_edge(points: Points, size: tuple[int, int] = SIZE, distance: float = 0.75) -> npt.NDArray[np.bool_]:
    """[H, W] of the pixels whose centres are so near to an edge that a rule of filling may decide."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    near = np.zeros(size, dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = np.clip(((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / max(length, 1e-9), 0, 1)
        near |= np.hypot(columns - x0 - along * (x1 - x0), rows - y0 - along * (y1 - y0)) <= distance
    return near


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (9, 90, 200)).save(path)


def png(mask: npt.NDArray[np.bool_]) -> bytes:
    out = BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(out, "PNG")
    return out.getvalue()


def text(path: Path, content: str | dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


# --- one file for each image ------------------------------------------------------------------------------------------


def labelme_json(name: str, shapes: list[dict[str, Any]], size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """As LabelMe 5 writes it, without the image in it."""
    return {
        "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
        "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip


def labelme_shape(label: str, points: Points, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {
        "label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {},
        "mask": None, **more,
    }  # fmt: skip


def labelme(root: Path, scenes: dict[str, Scene]) -> Recipe:
    for stem, things in scenes.items():
        picture(root / f"train/{stem}.jpg")
        shapes = [labelme_shape(label, points) for label, points in things]
        text(root / f"train/{stem}.json", labelme_json(f"{stem}.jpg", shapes))
    return Recipe("labelme", '[layout]\nannotations = "{split}/*.json"')


def supervisely_json(objects: list[dict[str, Any]], size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {"description": "", "tags": [], "size": {"height": size[0], "width": size[1]}, "objects": objects}


def supervisely_object(label: str, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {
        "id": 497521359, "classId": 1661571, "description": "", "geometryType": kind, "labelerLogin": "ann",
        "createdAt": "2024-01-02T03:04:05.678Z", "updatedAt": "2024-01-02T03:04:05.678Z", "tags": [],
        "classTitle": label, **more,
    }  # fmt: skip


def supervisely_bitmap(label: str, mask: npt.NDArray[np.bool_], origin: tuple[int, int]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(png(mask))).decode()
    return supervisely_object(label, "bitmap", bitmap={"data": data, "origin": list(origin)})


def supervisely(root: Path, scenes: dict[str, Scene]) -> Recipe:
    classes = [{"id": n, "title": name, "shape": "polygon", "color": "#0F8A3B"} for n, name in enumerate(NAMES)]
    text(root / "meta.json", {"classes": classes, "tags": [], "projectType": "images"})
    for stem, things in scenes.items():
        picture(root / f"train/img/{stem}.jpg")
        # Not whole, as in the labelling tool: whole ones are pixels.
        outlines = [(label, [(x + 1e-5, y + 1e-5) for x, y in points]) for label, points in things]
        objects = [supervisely_object(label, points={"exterior": points, "interior": []}) for label, points in outlines]
        text(root / f"train/ann/{stem}.jpg.json", supervisely_json(objects))
    return Recipe("supervisely", '[layout]\nimages = "{split}/img/*"\nannotations = "{split}/ann/{stem}.json"')


def yolo_line(label: str, points: Points, size: tuple[int, int] = SIZE) -> str:
    numbers = " ".join(f"{x / size[1]:.8f} {y / size[0]:.8f}" for x, y in points)
    return f"{NAMES.index(label)} {numbers}\n"


def yolo(root: Path, scenes: dict[str, Scene]) -> Recipe:
    """As Roboflow exports it: the paths lead out of the folder."""
    names = ", ".join(f"'{name}'" for name in NAMES)
    text(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\n\nnc: {len(NAMES)}\nnames: [{names}]\n")
    for stem, things in scenes.items():
        picture(root / f"train/images/{stem}.jpg")
        text(root / f"train/labels/{stem}.txt", "".join(yolo_line(*thing) for thing in things))
    return Recipe("yolo", '[layout]\ndata = "data.yaml"')


def voc_object(label: str, box: tuple[float, float, float, float], difficult: int = 0) -> str:
    edges = "".join(
        f"<{edge}>{value:g}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox>{edges}</bndbox></object>"
    )


def voc_xml(name: str, objects: list[str], size: tuple[int, int] | None = SIZE) -> str:
    said = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    return (
        f"<annotation>\n\t<folder>images</folder>\n\t<filename>{name}</filename>\n\t{said}\n\t"
        f"<segmented>0</segmented>\n\t{''.join(objects)}\n</annotation>\n"
    )


# --- one file for all -------------------------------------------------------------------------------------------------


def cvat_xml(images: list[str], labels: tuple[str, ...] = NAMES, more: str = "") -> str:
    """As CVAT 2 writes a task: `images` are elements."""
    listed = "".join(f"<label><name>{label}</name><color>#c06060</color><type>any</type></label>" for label in labels)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta><task><id>7</id><name>t</name><labels>{listed}</labels></task></meta>\n{more}{''.join(images)}"
        "</annotations>\n"
    )


def cvat_image(name: str, shapes: list[str], number: int = 0, size: tuple[int, int] = SIZE, more: str = "") -> str:
    return (
        f'  <image id="{number}" name={quoteattr(name)} {more}width="{size[1]}" height="{size[0]}">'
        f"{''.join(shapes)}</image>\n"
    )


def cvat_polygon(label: str, points: Points, z_order: int = 0, more: str = "") -> str:
    said = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return (
        f'<polygon label="{label}" source="manual" occluded="0" points="{said}" z_order="{z_order}"{more}>'
        '<attribute name="note"></attribute></polygon>'
    )


def cvat(root: Path, scenes: dict[str, Scene]) -> Recipe:
    images = []
    for number, (stem, things) in enumerate(scenes.items()):
        picture(root / f"images/train/{stem}.jpg")
        shapes = [cvat_polygon(label, points) for label, points in things]
        images.append(cvat_image(f"{stem}.jpg", shapes, number))
    text(root / "annotations.xml", cvat_xml(images))
    return Recipe("cvat", '[layout]\nimages = "images/{split}"\nannotations = "annotations.xml"')


def coco_json(scenes: dict[str, Scene], **image: Any) -> dict[str, Any]:
    """As Roboflow writes it: the first category is the project, which nothing is of."""
    categories = [{"id": 0, "name": "things-abcd", "supercategory": "none"}]
    categories += [{"id": n, "name": name, "supercategory": "things-abcd"} for n, name in enumerate(NAMES, 1)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (stem, things) in enumerate(scenes.items()):
        images.append(
            {"id": number, "license": 1, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1], **image}
        )
        for label, points in things:
            xs, ys = [x for x, _ in points], [y for _, y in points]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": NAMES.index(label) + 1, "bbox": box,
                "area": box[2] * box[3], "segmentation": [[value for point in points for value in point]], "iscrowd": 0,
            })  # fmt: skip
    return {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}


def coco(root: Path, scenes: dict[str, Scene]) -> Recipe:
    for stem in scenes:
        picture(root / f"train/{stem}.jpg")
    text(root / "train/_annotations.coco.json", coco_json(scenes))
    return Recipe("coco_instances", '[layout]\nimages = "{split}"\nannotations = "{split}/_annotations.coco.json"')


TOOLS = {tool.__name__: tool for tool in (labelme, supervisely, yolo, cvat, coco)}


class Dataset:
    """A folder of one format, with its recipe."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES) -> None:
        self.folder, self.root = folder, folder / "data"
        self.root.mkdir()
        rows = "".join(f"{index},{name}\n" for index, name in enumerate(names))
        (folder / "tools.csv").write_text(f"index,name\n{rows}")

    def recipe(self, made: Recipe, kind: str = "noisy_mask", more: str = "") -> Any:
        head = f'name = "tools"\nannotation_type = "{kind}"\nreader = "{made.reader}"\ndescriptions = "tools.csv"\n'
        (self.folder / "tools.toml").write_text(f"{head}{made.rest}\n{more}\n")
        return load_recipe(self.folder / "tools.toml")

    def listed(self, made: Recipe, kind: str = "noisy_mask", more: str = "", split: str = "train") -> Listed:
        return listed(self.recipe(made, kind, more), self.root, split)

    def read(self, made: Recipe, kind: str = "noisy_mask", more: str = "") -> Annotation:
        found = self.listed(made, kind, more)
        return found.read(found.item, SIZE)

    def check(self, made: Recipe, kind: str = "noisy_mask", more: str = "") -> ShardReport:
        return check(self.recipe(made, kind, more), self.root, "train")

    # One image "a.jpg" of some objects, by format.

    def labelme(self, *shapes: dict[str, Any]) -> Recipe:
        picture(self.root / "train/a.jpg")
        text(self.root / "train/a.json", labelme_json("a.jpg", list(shapes)))
        return Recipe("labelme", '[layout]\nannotations = "{split}/*.json"')

    def supervisely(self, *objects: dict[str, Any]) -> Recipe:
        made = supervisely(self.root, {"a": []})
        text(self.root / "train/ann/a.jpg.json", supervisely_json(list(objects)))
        return made

    def cvat(self, *shapes: str) -> Recipe:
        made = cvat(self.root, {"a": []})
        text(self.root / "annotations.xml", cvat_xml([cvat_image("a.jpg", list(shapes))]))
        return made

    def yolo(self, *lines: str) -> Recipe:
        made = yolo(self.root, {"a": []})
        text(self.root / "train/labels/a.txt", "\n".join(lines))
        return made

    def voc(self, *objects: str, size: tuple[int, int] | None = SIZE) -> Recipe:
        picture(self.root / "JPEGImages/a.jpg")
        text(self.root / "Annotations/a.xml", voc_xml("a.jpg", list(objects), size))
        return Recipe("voc_xml", '[layout]\nimages = "JPEGImages/*.jpg"\nannotations = "Annotations/{stem}.xml"')


Maker = Callable[[Dataset, str], Recipe]


def index_mask(path: Path) -> None:
    """An index PNG of one class, whatever the path ends in."""
    Image.new("L", (SIZE[1], SIZE[0]), 1).save(path, "PNG")
