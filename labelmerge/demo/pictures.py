"""The pictures of the demo's page: datasets, what the models see in held-out images, labels that nobody drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelmerge.bank.bank import Bank
from labelmerge.colours import palette
from labelmerge.demo.experiment import Banks, Workplace
from labelmerge.demo.report import Chip, DatasetCard, PredictionRow, UnseenCard, data_uri, heat_map
from labelmerge.demo.results import MERGED, ROW_NAMES
from labelmerge.demo.worlds import HELD_OUT, WORLDS, recipe_of, taxonomies, unseen_labels
from labelmerge.labels import LabelKey
from labelmerge.methods.meaning import labels_of, run_columns
from labelmerge.methods.restore import Trained, load_trained
from labelmerge.model.checkpoint import find_checkpoint
from labelmerge.model.views import Views
from labelmerge.predict.overlays import overlay
from labelmerge.progress import Track
from labelmerge.shardset.sample import Sample
from labelmerge.shardset.shardset import ShardSet

Classes = npt.NDArray[np.int64]
Cosines = npt.NDArray[np.float32]

ENLARGE = 3  # browsers show pictures of 100 pixels at about 300
KINDS = {"mask": "masks", "noisy_mask": "noisy partial masks", "box": "boxes only"}


class Viewer:
    """Held-out samples, and what each shown model makes of them."""

    def __init__(self, place: Workplace, banks: Banks, methods: Mapping[str, str]) -> None:
        self.sets = {dataset: ShardSet.open(place.shards / dataset / WORLDS[dataset].split) for dataset in HELD_OUT}
        self.models = {key: load_trained(place.run(method)) for key, method in methods.items()}
        self.banks = {
            key: Bank.load(find_checkpoint(place.run(method)) / "bank" if method == "concepts" else banks.of(method))
            for key, method in methods.items()
        }
        self.positions = {
            dataset: data.space.lookup({index: n for n, index in enumerate(data.space.indices)}, -1)
            for dataset, data in self.sets.items()
        }

    def truth(self, dataset: str, sample: Sample) -> Classes:
        """Positions in the label space, -1 for no label."""
        assert sample.mask is not None  # held-out sets have masks
        return self.positions[dataset][sample.mask]

    def prediction(self, key: str, dataset: str, sample: Sample) -> Classes:
        model = self.models[key]
        columns = run_columns(model.checkpoint, model.learner)
        labels = labels_of(self.sets[dataset].space, self.banks[key], columns)
        return model.predictor(labels, Views(short_edge=0)).classes(sample.image)

    def similarity(self, key: str, label: LabelKey, sample: Sample) -> Cosines:
        """The cosine of every pixel's embedding with one label, [H, W]."""
        return _cosine(self.models[key], sample.image, self.banks[key].rows([label])[0])


def _cosine(trained: Trained, image: npt.NDArray[np.uint8], vector: Cosines) -> Cosines:
    import torch

    model = trained.learner.model
    height, width = image.shape[:2]
    with torch.inference_mode():
        pixels = model.normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        padded = torch.nn.functional.pad(pixels, (0, -width % model.stride, 0, -height % model.stride))
        embeddings = torch.nn.functional.normalize(model(padded), dim=1)
        cosines = torch.einsum("bchw,c->bhw", embeddings, torch.from_numpy(vector))[None]
        size = padded.shape[2:]
        full = torch.nn.functional.interpolate(cosines, size=size, mode="bilinear", align_corners=False)
    found: Cosines = full[0, 0, :height, :width].numpy()
    return found


def _picture(image: npt.NDArray[np.uint8], enlarge: int = ENLARGE) -> str:
    return data_uri(image, enlarge=enlarge)


def _chips(names: Sequence[str], shown: Sequence[int], unseen: Sequence[str] = ()) -> list[Chip]:
    colours = palette(names)
    return [Chip(names[n], _css(colours[n]), names[n] in unseen) for n in shown]


def _css(colour: npt.NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def unseen_cards(viewer: Viewer, scores: Sequence[Mapping[str, Any]], bank: Bank, track: Track) -> list[UnseenCard]:
    """The unseen labels that went best, worst and in the middle, each in the image that has most of it."""
    dataset = "village"
    data = viewer.sets[dataset]
    names = list(data.space.names)
    iou = {score["method"]: score["iou"][dataset] for score in scores}
    ranked = sorted((name for name in unseen_labels(dataset) if name in iou["concepts"]), key=iou["concepts"].get)
    chosen = dict.fromkeys([ranked[-1], ranked[len(ranked) // 2], ranked[0]]) if ranked else {}
    samples = [data.read(number) for number in range(len(data))]
    cards = []
    for name in track(list(chosen), "drawing unseen labels"):
        position = names.index(name)
        key = (dataset, data.space.indices[position])
        sample = max(samples, key=lambda s: int((viewer.truth(dataset, s) == position).sum()))  # noqa: B023
        truth, found = viewer.truth(dataset, sample), viewer.prediction("concepts", dataset, sample)
        only = [np.where(mask == position, 0, -1) for mask in (truth, found)]
        cards.append(
            UnseenCard(
                name=name,
                description=_text_of(bank, key),
                image=_picture(sample.image),
                truth=_picture(overlay(sample.image, only[0], [name])),
                heat=_picture(heat_map(sample.image, viewer.similarity("concepts", key, sample))),
                found=_picture(overlay(sample.image, only[1], [name])),
                scores=[(method, f"{100 * iou[method].get(name, 0.0):.0f} %") for method in MERGED],
            )
        )
    return cards


def _text_of(bank: Bank, key: LabelKey) -> str:
    return bank.texts[int(bank.positions([key])[0])]


def prediction_rows(viewer: Viewer, track: Track) -> list[PredictionRow]:
    """The first image of CamVid, and those village images that together show the most unseen labels."""
    chosen = [("camvid", number) for number in _telling(viewer, "camvid", 2)]
    chosen += [("village", number) for number in _telling(viewer, "village", 3)]
    rows = []
    for dataset, number in track(chosen, "drawing predictions"):
        data = viewer.sets[dataset]
        sample, names = data.read(number), list(data.space.names)
        truth = viewer.truth(dataset, sample)
        masks = {"truth": truth} | {key: viewer.prediction(key, dataset, sample) for key in viewer.models}
        titles = {"truth": "truth", **ROW_NAMES}
        pictures = [("image", _picture(sample.image))]
        pictures += [
            (titles[key], _picture(overlay(sample.image, mask, names, strength=0.7, edges=False)))
            for key, mask in masks.items()
        ]
        counts = np.bincount(truth[truth >= 0], minlength=len(names))
        shown = [int(n) for n in np.argsort(-counts) if counts[n]]
        rows.append(PredictionRow(sample.key, pictures, _chips(names, shown, unseen_labels(dataset))))
    return rows


def _telling(viewer: Viewer, dataset: str, count: int) -> list[int]:
    """The images that together show as many labels of the set as they can, unseen ones first; by their truth alone."""
    data = viewer.sets[dataset]
    unseen = unseen_labels(dataset)
    weight = np.array([3.0 if name in unseen else 1.0 for name in data.space.names])
    present = []
    for number in range(len(data)):
        truth = viewer.truth(dataset, data.read(number))
        counts = np.bincount(truth[truth >= 0], minlength=len(weight))
        present.append(counts > truth.size / 200)
    chosen: list[int] = []
    missing = np.ones(len(weight), dtype=np.bool_)
    for _ in range(min(count, len(present))):
        gains = [float((weight * (shown & missing)).sum()) + 0.1 * float(shown.sum()) for shown in present]
        for number in chosen:
            gains[number] = -1.0
        chosen.append(int(np.argmax(gains)))
        missing &= ~present[chosen[-1]]
    return chosen


def dataset_card(place: Workplace, dataset: str) -> DatasetCard:
    world = WORLDS[dataset]
    data = ShardSet.open(place.shards / dataset / world.split)
    recipe = recipe_of(dataset, place.worlds)
    used = list(taxonomies()[dataset])
    image, annotation = _telling_sample(data, used)
    return DatasetCard(
        name=dataset,
        title=recipe.title,
        kind="held out" if world.held_out else KINDS[data.annotation_type],
        facts=f"{len(data)} images of {world.width} × {world.height}, {len(used)} labels, reader {recipe.reader}",
        image=_picture(image, 2),
        annotation=_picture(annotation, 2),
        chips=_chips(used, range(len(used)), unseen_labels(dataset)),
        held_out=world.held_out,
    )


def split_picture(place: Workplace, dataset: str) -> str:
    """The same sample as on the dataset's card, square, and its right half under the annotation."""
    data = ShardSet.open(place.shards / dataset / WORLDS[dataset].split)
    image, annotation = _telling_sample(data, list(taxonomies()[dataset]))
    side, middle = image.shape[0], image.shape[1] // 2
    both = np.concatenate([image[:, :middle], annotation[:, middle:]], axis=1)
    return _picture(both[:, middle - side // 2 : middle - side // 2 + side], 2)


def _telling_sample(data: ShardSet, used: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Image and annotation, both uint8 [H, W, 3], of that one of the first samples which has most labels."""
    samples = [data.read(number) for number in range(min(len(data), 12))]
    sample = max(samples, key=_labels_in)
    index_of = dict(zip(data.space.names, data.space.indices, strict=True))
    table = data.space.lookup({index_of[name]: n for n, name in enumerate(used)}, -1)
    if sample.mask is None:
        return sample.image, _boxes(sample, [int(table[c]) for c in sample.box_classes], used)
    return sample.image, overlay(sample.image, table[sample.mask], used, strength=0.7, edges=False)


def _labels_in(sample: Sample) -> int:
    return len(np.unique(sample.box_classes if sample.mask is None else sample.mask))


def _boxes(sample: Sample, classes: Sequence[int], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    colours = palette(names)
    picture = Image.fromarray(overlay(sample.image, np.full(sample.image.shape[:2], -1), names, strength=0.25))
    draw = ImageDraw.Draw(picture)
    for (x0, y0, x1, y1), position in zip(sample.boxes.tolist(), classes, strict=True):
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=tuple(colours[position].tolist()))
    return np.asarray(picture)
