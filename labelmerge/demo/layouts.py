"""The official on-disk layout and annotation encoding of each dataset that a toy world stands for.

Written from the datasets' own documentation, not from the readers: ids, names and folders below are what is in the
downloads. Each class takes the samples one by one with `add`; `close` writes what belongs to the dataset as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.demo.layout import LEAST_PIXELS, Layout, bounds, csv_text, png, random_hex, slug, with_void
from labelmerge.demo.worlds import UNLABELLED, ToySample, World
from labelmerge.files import write_bytes, write_json, write_text


class Cityscapes(Layout):
    """leftImg8bit/ and gtFine/, by city; `labelIds` are the 34 official ids, `instanceIds` 16 bit id * 1000 + n."""

    CITIES = ("aachen", "bochum", "ulm")
    RAW_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the 19 train ids
    EGO_VEHICLE = 1
    FIRST_THING = 24

    def add(self, sample: ToySample) -> None:
        city = self.CITIES[sample.number % len(self.CITIES)]
        stem = f"{city}_{sample.number // len(self.CITIES):06d}_000019"
        raw_of_thing = np.array(
            [0 if c == UNLABELLED else self.RAW_IDS[c] for c in (*sample.thing_classes, UNLABELLED)]
        )
        raw = raw_of_thing[sample.things]
        counted = np.where(
            raw_of_thing >= self.FIRST_THING, raw_of_thing * 1000 + np.arange(len(raw_of_thing)), raw_of_thing
        )
        instances = counted[sample.things]
        hood = raw.shape[0] - 3
        if sample.number % 4 == 0:  # the bonnet of the camera's own car
            sample.image[hood:] = 30
            raw[hood:] = instances[hood:] = self.EGO_VEHICLE
        folder, split = f"{self.world.split}/{city}", f"{stem}_gtFine"
        self.write_image(f"leftImg8bit/{folder}/{stem}_leftImg8bit.png", sample)
        self.write_mask(f"gtFine/{folder}/{split}_labelIds.png", raw.astype(np.uint8))
        self.write_mask(f"gtFine/{folder}/{split}_instanceIds.png", instances.astype(np.uint16))


class Ade20k(Layout):
    """ADEChallengeData2016: 0 is unlabelled, the 150 classes are 1..150."""

    def add(self, sample: ToySample) -> None:
        stem = f"ADE_train_{sample.number + 1:08d}"
        self.write_image(f"ADEChallengeData2016/images/training/{stem}.jpg", sample)
        self.write_mask(f"ADEChallengeData2016/annotations/training/{stem}.png", (sample.classes + 1).astype(np.uint8))


class Bdd100k(Layout):
    """images/10k and labels/sem_seg/masks: train ids, 255 is unlabelled."""

    def add(self, sample: ToySample) -> None:
        stem = f"{random_hex(self.rng, 8)}-{random_hex(self.rng, 8)}"
        self.write_image(f"bdd100k/images/10k/train/{stem}.jpg", sample)
        self.write_mask(f"bdd100k/labels/sem_seg/masks/train/{stem}.png", with_void(sample.classes, 255))


class Mapillary(Layout):
    """The v2.0 archive with v1.2 labels: paletted PNGs; a value is a place in the config's list, 65 is unlabelled."""

    UNLABELLED = 65

    def __init__(self, root: Path, world: World, seed: int) -> None:
        super().__init__(root, world, seed)
        self.palette = np.random.default_rng(12).integers(0, 256, (self.UNLABELLED + 1, 3))
        self.palette[self.UNLABELLED] = 0

    def add(self, sample: ToySample) -> None:
        letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
        key = "".join(self.rng.choice(letters, 22))
        self.write_image(f"training/images/{key}.jpg", sample)
        mask = Image.fromarray(with_void(sample.classes, self.UNLABELLED))
        mask.putpalette(self.palette.astype(np.uint8).tobytes())  # turns the image into mode P, values untouched
        write_bytes(self.root / f"training/v1.2/labels/{key}.png", png(mask))

    def close(self) -> None:
        names = [row.name for row in load_descriptions(load_recipe("mapillary"))] + ["Unlabeled"]
        labels = [
            {"name": slug(name), "readable": name, "color": color, "evaluate": name != "Unlabeled"}
            for name, color in zip(names, self.palette.tolist(), strict=True)
        ]
        write_json(self.root / "config_v1.2.json", {"labels": labels, "version": 1.2, "mapping": "public"})


class SunRgbd(Layout):
    """Choy's package: img-%06d.jpg and %08d.png, both from 1; 0 is void, the 37 classes are 1..37."""

    def add(self, sample: ToySample) -> None:
        self.write_image(f"image/train/img-{sample.number + 1:06d}.jpg", sample)
        self.write_mask(f"label37/train/{sample.number + 1:08d}.png", (sample.classes + 1).astype(np.uint8))


class Idd(Layout):
    """Polygons in painting order, later over earlier; some objects are marked as deleted and count for nothing."""

    def add(self, sample: ToySample) -> None:
        names = {row.index: row.name for row in load_descriptions(load_recipe("idd"))}
        folder, stem = f"{sample.number // 20:03d}", f"{sample.number:06d}"
        height, width = sample.classes.shape
        objects: list[dict[str, Any]] = []
        for thing, index in zip(sample.scene.things, sample.thing_classes, strict=True):
            label = "unlabeled" if index == UNLABELLED else names[index]
            objects += [self._object(label, part.points.tolist(), len(objects)) for part in thing.parts]
        if sample.number % 5 == 0:  # what an annotator took back: the whole image would be sky
            everything = [[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]]
            objects.append({**self._object("sky", everything, len(objects)), "deleted": 1})
            objects.append(self._object("car", [[1.0, 1.0], [4.0, 4.0]], len(objects)))  # a line has no area
        self.write_image(f"IDD_Segmentation/leftImg8bit/train/{folder}/{stem}_leftImg8bit.png", sample)
        annotation = {"imgHeight": height, "imgWidth": width, "objects": objects}
        write_json(self.root / f"IDD_Segmentation/gtFine/train/{folder}/{stem}_gtFine_polygons.json", annotation)

    @staticmethod
    def _object(label: str, polygon: list[list[float]], number: int) -> dict[str, Any]:
        return {
            "date": "01-Jan-2018 00:00:00",
            "deleted": 0,
            "draw": True,
            "id": number,
            "label": label,
            "polygon": polygon,
            "user": "toy",
            "verified": 1,
        }


class CocoPanoptic(Layout):
    """PNGs whose colour is a segment's id (R + 256 G + 65536 B), and one JSON that says what each segment is."""

    THINGS_WITHOUT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # category ids 1..90 that were never used
    STUFF = (
        *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151),
        *(154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201)),
    )

    def __init__(self, root: Path, world: World, seed: int) -> None:
        super().__init__(root, world, seed)
        self.ids = [number for number in range(1, 91) if number not in self.THINGS_WITHOUT] + list(self.STUFF)
        self.things = len(self.ids) - len(self.STUFF)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, sample: ToySample) -> None:
        stem = f"{sample.number * 7 + 9:012d}"
        height, width = sample.classes.shape
        ids = np.zeros((height, width), dtype=np.int64)
        segments: list[dict[str, Any]] = []
        for classes, mask in self._segments(sample):
            crowd = int(classes < self.things and self.rng.random() < 0.06)
            number = int(self.rng.integers(1, 1 << 24))
            ids[mask] = number
            x0, y0, x1, y1 = bounds(mask)
            segments.append(
                {
                    "id": number,
                    "category_id": self.ids[classes],
                    "area": int(mask.sum()),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": crowd,
                }
            )
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
        self.write_image(f"train2017/{stem}.jpg", sample)
        self.write_mask(f"annotations/panoptic_train2017/{stem}.png", rgb)
        self.images.append({"id": int(stem), "file_name": f"{stem}.jpg", "width": width, "height": height})
        self.annotations.append({"image_id": int(stem), "file_name": f"{stem}.png", "segments_info": segments})

    def _segments(self, sample: ToySample) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """One segment for each visible thing, and one for all pixels of a kind of stuff."""
        stuff = {c for c in sample.thing_classes if c >= self.things}
        for index in sorted(stuff):
            mask = sample.classes == index
            if mask.any():
                yield index, mask
        for number, index in enumerate(sample.thing_classes):
            mask = sample.things == number
            if 0 <= index < self.things and mask.any():
                yield index, mask

    def close(self) -> None:
        rows = load_descriptions(load_recipe("coco_panoptic"))
        categories = [
            {"id": number, "name": row.name, "isthing": int(place < self.things)}
            for place, (number, row) in enumerate(zip(self.ids, rows, strict=True))
        ]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        write_json(self.root / "annotations/panoptic_train2017.json", content)


class OpenImages(Layout):
    """One PNG for each object, at another size than the image, with rough borders; many objects have none at all."""

    MIDS = {
        "Mouse": "/m/04rmv",
        "Dog": "/m/0bt9lr",
        "Horse": "/m/03k3r",
        "Cattle": "/m/01xq0k1",
        "Sheep": "/m/07bgp",
        "Bird": "/m/015p6",
        "Person": "/m/01g317",
        "Vehicle": "/m/07yv9",
        "Tree": "/m/07j7r",
        "Chair": "/m/01mzpv",
    }
    MASKED = 0.7  # share of objects that have a mask
    MASK_SCALE = 1.5
    WOBBLE = 1.2  # pixels by which a mask's border is off

    def __init__(self, root: Path, world: World, seed: int) -> None:
        super().__init__(root, world, seed)
        self.names = {row.index: row.name for row in load_descriptions(load_recipe("openimages"))}
        self.masks: list[list[object]] = []
        self.boxes: list[list[object]] = []

    def add(self, sample: ToySample) -> None:
        image_id = random_hex(self.rng, 16)
        height, width = sample.classes.shape
        self.write_image(f"train_{image_id[0]}/{image_id}.jpg", sample)
        for number, index in enumerate(sample.thing_classes):
            visible = sample.things == number
            if index == UNLABELLED or visible.sum() < LEAST_PIXELS:
                continue
            mid = self.MIDS[self.names[index]]
            x0, y0, x1, y1 = bounds(visible)
            box = [x0 / width, x1 / width, y0 / height, y1 / height]
            self.boxes.append([image_id, "xclick", mid, 1, *box, 0, 0, 0, 0, 0])
            if self.rng.random() > self.MASKED:
                continue
            box_id = random_hex(self.rng, 8)
            path = f"{image_id}_{mid.strip('/').replace('/', '')}_{box_id}.png"
            write_bytes(self.root / f"masks/train/{image_id[0]}/{path}", png(self._rough(visible)))
            self.masks.append([path, image_id, mid, box_id, *box, round(float(self.rng.uniform(0.6, 0.95)), 5), ""])

    def _rough(self, mask: npt.NDArray[np.bool_]) -> Image.Image:
        """The mask at `MASK_SCALE`, every border pixel moved by about `WOBBLE` pixels; 1 bit."""
        height, width = (int(round(size * self.MASK_SCALE)) for size in mask.shape)
        y, x = np.mgrid[0:height, 0:width] / self.MASK_SCALE
        shift = self.rng.normal(0, self.WOBBLE, (2, height // 6 + 2, width // 6 + 2)).repeat(6, 1).repeat(6, 2)
        y = np.clip(y + shift[0, :height, :width], 0, mask.shape[0] - 1).astype(int)
        x = np.clip(x + shift[1, :height, :width], 0, mask.shape[1] - 1).astype(int)
        return Image.fromarray(mask[y, x])

    def close(self) -> None:
        flags = ["IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"]
        header = ["MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax"]
        path = "train-annotations-object-segmentation.csv"
        write_text(self.root / path, csv_text([[*header, "PredictedIoU", "Clicks"], *self.masks]))
        header = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"]
        write_text(self.root / "oidv6-train-annotations-bbox.csv", csv_text([[*header, *flags], *self.boxes]))
        names = [[mid, name] for name, mid in sorted(self.MIDS.items(), key=lambda item: item[1])]
        write_text(self.root / "class-descriptions-boxable.csv", csv_text(names))
        write_text(self.root / "classes-segmentation.txt", "".join(f"{mid}\n" for mid in sorted(self.MIDS.values())))


class Objects365(Layout):
    """The v2 schema: patch folders, one JSON of boxes, categories in no order; a few crowds and degenerate boxes."""

    PATCHES = 4

    def __init__(self, root: Path, world: World, seed: int) -> None:
        super().__init__(root, world, seed)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, sample: ToySample) -> None:
        release, patch = 1 + sample.number % 2, sample.number % self.PATCHES
        name = f"patch{patch}/objects365_v{release}_{sample.number:08d}.jpg"
        height, width = sample.classes.shape
        self.write_image(f"train/{name}", sample)
        image = {"id": sample.number, "file_name": f"images/v{release}/{name}", "width": width, "height": height}
        self.images.append({**image, "license": 5, "url": ""})
        for number, index in enumerate(sample.thing_classes):
            visible = sample.things == number
            if index != UNLABELLED and visible.sum() >= LEAST_PIXELS:
                x0, y0, x1, y1 = bounds(visible)
                slack = self.rng.normal(0, 0.4, 4)
                box = [x0 + slack[0], y0 + slack[1], x1 - x0 + slack[2], y1 - y0 + slack[3]]
                self._annotate(sample.number, index, box, crowd=int(self.rng.random() < 0.04))
        if sample.number % 10 == 0:
            self._annotate(sample.number, 0, [5.0, 5.0, 0.0, 8.0], crowd=0)  # a slip of the mouse

    def _annotate(self, image: int, index: int, box: list[float], crowd: int) -> None:
        flags = {"iscrowd": crowd, "isfake": 0, "isreflected": 0}
        area = box[2] * box[3]
        self.annotations.append(
            {"id": len(self.annotations) + 1, "image_id": image, "category_id": index + 1, "bbox": box, "area": area}
            | flags
        )

    def close(self) -> None:
        rows = load_descriptions(load_recipe("objects365"))
        categories = [{"id": row.index + 1, "name": row.name} for row in rows]
        shuffled = [categories[i] for i in self.rng.permutation(len(categories))]
        content = {"images": self.images, "annotations": self.annotations, "categories": shuffled}
        write_json(self.root / "zhiyuan_objv2_train.json", content)


class CamVid(Layout):
    """The SegNet authors' copy: test/ and testannot/, 11 is void, and a list of both."""

    def __init__(self, root: Path, world: World, seed: int) -> None:
        super().__init__(root, world, seed)
        self.lines: list[str] = []

    def add(self, sample: ToySample) -> None:
        name = f"Seq05VD_f{sample.number * 30:05d}.png"
        self.write_image(f"CamVid/test/{name}", sample)
        self.write_mask(f"CamVid/testannot/{name}", with_void(sample.classes, 11))
        self.lines.append(f"/SegNet/CamVid/test/{name} /SegNet/CamVid/testannot/{name}\n")

    def close(self) -> None:
        write_text(self.root / "CamVid/test.txt", "".join(self.lines))


class Village(Layout):
    """A user's own dataset, as `village.toml` says: index PNGs, 255 means no label."""

    def add(self, sample: ToySample) -> None:
        self.write_image(f"images/test/walk-{sample.number:03d}.jpg", sample)
        self.write_mask(f"masks/test/walk-{sample.number:03d}.png", with_void(sample.classes, 255))


LAYOUTS: dict[str, type[Layout]] = {
    "ade20k": Ade20k,
    "bdd100k": Bdd100k,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "coco_panoptic": CocoPanoptic,
    "idd": Idd,
    "mapillary": Mapillary,
    "objects365": Objects365,
    "openimages": OpenImages,
    "sunrgbd": SunRgbd,
    "village": Village,
}
