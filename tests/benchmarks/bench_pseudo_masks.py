"""What masks made of boxes are worth (SSIW, Table 10), on toy worlds: their IoU, then AP with few labels.

    python tests/benchmarks/bench_pseudo_masks.py --out bench-out [--seeds 3] [--share 0.1] [--device cuda]
        [--rows NAME…] [--results FILE] [--also FILE…]

A model learns from the masks of Cityscapes, ADE20K and a tenth of COCO panoptic and from the boxes of Objects365;
`labelmerge relabel --instances` turns those boxes into masks. First their IoU with what the worlds' generator drew,
beside boxes taken as masks. Then torchvision's Mask R-CNN (on `lite`'s encoder, which has seen ImageNet) and our LMSeg
(`tiny`, which has seen nothing) learn from the tenth of COCO's labels, with and without having learned from the masks
before. AP by pycocotools, on images that training did not see. Prints Markdown with mean and standard deviation over
the worlds; rows that the results or files of other machines (--also) have are not run again, and with `--seeds 0`
nothing is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from kept import Kept  # type: ignore[import-not-found]  # the file beside this one
from pycocotools import mask as coco
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from labelmerge.demo.datasets import write_world
from labelmerge.demo.worlds import draw_samples, recipe_of
from labelmerge.embed.embed import embed_labels
from labelmerge.model.build import Pyramid, build_model
from labelmerge.sharding.shard import shard
from labelmerge.shardset.sample import Sample
from labelmerge.shardset.shardset import ShardSet
from labelmerge.tasks.instances import InstanceTask

MASKS = ("cityscapes", "ade20k")
IMAGES, FRESH = 200, 60  # of each dataset
LEAST_IOU = 0.7  # from which on a box is that of a drawn thing: boxes are some tenths of a pixel off
MADE = "masks of boxes"
DETECTOR = {"at once": None, "after boxes as masks": True, "after masks of boxes": False}  # are masks filled boxes?
SEGMENTER = ("at once", "after masks of boxes")
ROWS = (MADE, *(f"Mask R-CNN, {how}" for how in DETECTOR), *(f"LMSeg, {how}" for how in SEGMENTER))
SIDE = 160  # what Mask R-CNN resizes the short edge to
_CHANNELS = 64


def draw(root: Path, seed: int) -> None:
    """Draw, shard and embed what is not there yet."""
    teachers = () if (root / "pseudo").is_dir() else MASKS
    parts = [("train", name, IMAGES, 0) for name in (*teachers, "coco_panoptic", "objects365")]
    for part, dataset, count, first in [*parts, ("fresh", "coco_panoptic", FRESH, IMAGES)]:
        folder = root / part / "worlds" / dataset
        if (root / part / "shards" / dataset).is_dir():
            continue
        write_world(dataset, folder, count, seed, first=first)
        shard(recipe_of(dataset, folder), folder, "train", root / part / "shards")
    if not (root / "bank").is_dir():
        names = (*MASKS, "coco_panoptic", "objects365")
        embed_labels([recipe_of(name, root) for name in names], root / "bank", encoder="offline")


def call(*words: object) -> None:
    """Run labelmerge as a user would; the command is printed."""
    print("$ labelmerge", *words, flush=True)
    subprocess.run([sys.executable, "-m", "labelmerge", *map(str, words), "--quiet"], check=True)


def pseudo_masks(root: Path, labelled: int, steps: int, device: str) -> ShardSet:
    """Objects365's boxes as masks, by a model that learned from masks elsewhere and from these boxes."""
    if not (root / "pseudo").is_dir():
        sets = [root / "train/shards" / name for name in (*MASKS, "coco_panoptic", "objects365")]
        call("train", "--shards", *sets, "--bank", root / "bank", "--out", root / "run", "--steps", steps, "--device",
             device, "--batch-size", 16, "--labelled", f"coco_panoptic={labelled}", "--set", "crop=64", "lr=3e-3",
             "warmup=20")  # fmt: skip
        call("relabel", root / "train/shards/objects365", "--checkpoint", root / "run", "--instances", "--out",
             root / "pseudo", "--device", device)  # fmt: skip
    return ShardSet.open(root / "pseudo/objects365/train")


@dataclass
class Scores:
    """IoUs of masks with what was drawn, one for each box; 0 where a box has no mask."""

    pseudo: list[float] = field(default_factory=list)
    filled: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Means: of boxes taken as masks, of the masks that were made, and of how many boxes have one."""
        masks = np.array(self.pseudo)
        kept = masks > 0
        return {
            "IoU of boxes": float(np.mean(self.filled)) if self.filled else 0.0,
            "IoU of masks": float(masks[kept].mean()) if kept.any() else 0.0,
            "boxes with a mask": float(kept.mean()) if len(masks) else 0.0,
        }


def score(root: Path, pseudo: ShardSet, seed: int) -> Scores:
    """How near the masks are to what was drawn."""
    boxes = ShardSet.open(root / "train/shards/objects365/train")
    drawn = {each.number: each for each in draw_samples("objects365", root / "train/worlds/objects365", IMAGES, seed)}
    masks = {each.key: each for each in (pseudo.read(place, instances=True) for place in range(len(pseudo)))}
    scores = Scores()
    for place in range(len(boxes)):
        sample = boxes.read(place)
        truth = drawn[int(Path(sample.meta["source"]["path"]).stem.split("_")[-1])]
        made = masks.get(sample.key)
        height, width = truth.things.shape
        for number, (box, index) in enumerate(zip(sample.boxes, sample.box_classes.tolist(), strict=True)):
            filled = np.zeros((height, width), bool)
            x0, y0, x1, y1 = (max(round(float(edge)), 0) for edge in box)
            filled[y0:y1, x0:x1] = True
            mask = best_match(truth.things, truth.thing_classes, index, filled)
            if mask is None or sample.iscrowd[number]:
                continue
            scores.filled.append(overlap(filled, mask))
            own = mask_of(made, sample.meta["boxes"][number])
            scores.pseudo.append(0.0 if own is None else overlap(own, mask))
    return scores


def best_match(
    things: npt.NDArray[np.integer], classes: Sequence[int], index: int, filled: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_] | None:
    """The drawn thing of a class whose own bounds fit a box best; None where none does."""
    best, found = LEAST_IOU, None
    for number, each in enumerate(classes):
        mask = things == number
        if each != index or not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        bounds = np.zeros_like(filled)
        bounds[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        if (fit := overlap(bounds, filled)) > best:
            best, found = fit, mask
    return found


def mask_of(sample: Sample | None, box: dict[str, Any]) -> npt.NDArray[np.bool_] | None:
    """The mask that was made of a box; None where it was dropped."""
    for segment in sample.segments if sample is not None else ():
        if segment["native_id"] == box["native_id"]:
            assert sample is not None and sample.instances is not None
            mask: npt.NDArray[np.bool_] = sample.instances == segment["id"]
            return mask
    return None


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Intersection over union."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


class Lite(nn.Module):
    """`lite`'s encoder with a feature pyramid, as torchvision's detectors take a backbone."""

    out_channels = _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Pyramid.of(build_model("lite", 8, pretrained="imagenet"))
        self.fpn = FeaturePyramidNetwork(list(self.encoder.channels), _CHANNELS)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.encoder(images)
        found: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(k), each) for k, each in enumerate(maps)))
        return found

    def train(self, mode: bool = True) -> Lite:
        """As ever, but for the statistics of batch norm: they are ImageNet's, as in torchvision's own recipes."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def mask_rcnn(classes: int, seed: int) -> MaskRCNN:
    """torchvision's Mask R-CNN, narrower than usual; class 0 is the background."""
    torch.manual_seed(seed)
    backbone = Lite()
    names = ["0", "1", "2", "3"]
    return MaskRCNN(
        backbone,
        num_classes=None,
        min_size=SIDE,
        max_size=2 * SIDE,
        image_mean=list(backbone.encoder.mean),
        image_std=list(backbone.encoder.std),
        rpn_anchor_generator=AnchorGenerator(((8,), (24,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 4),
        box_roi_pool=MultiScaleRoIAlign(names, 7, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(_CHANNELS * 49, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
        box_predictor=Predictor(256, classes),
        box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=500,
        rpn_post_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=500,
        rpn_post_nms_top_n_test=200,
        mask_roi_pool=MultiScaleRoIAlign(names, 14, 2),
        mask_head=MaskRCNNHeads(_CHANNELS, (_CHANNELS,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(_CHANNELS, _CHANNELS, classes),
    )


class Predictor(nn.Module):
    """The last layers of boxes: scores and corners."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(width, classes), nn.Linear(width, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


Example = tuple[Tensor, dict[str, Tensor]]


def examples(shards: ShardSet, places: Sequence[int], position: dict[int, int], filled: bool = False) -> list[Example]:
    """Images with their things as torchvision wants them; with `filled`, each mask is its whole box."""
    found = []
    for place in places:
        sample = shards.read(place, instances=True)
        assert sample.instances is not None
        masks, boxes, labels = [], [], []
        for segment in sample.segments:
            mask = sample.instances == segment["id"]
            if segment["class_index"] not in position or segment["iscrowd"] or mask.sum() < 4:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            if filled:
                mask = np.zeros_like(mask)
                mask[box[1] : box[3], box[0] : box[2]] = True
            masks.append(mask)
            boxes.append(box)
            labels.append(1 + position[segment["class_index"]])
        if boxes:
            target = {
                "boxes": torch.tensor(boxes, dtype=torch.float32),
                "labels": torch.tensor(labels),
                "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
            }
            found.append((torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255, target))
    return found


def learn(model: MaskRCNN, data: list[Example], steps: int, seed: int) -> MaskRCNN:
    """Train on random batches, half of them mirrored; the learning rate falls to 0."""
    device = next(model.parameters()).device
    data = [(image.to(device), {key: each.to(device) for key, each in target.items()}) for image, target in data]
    rng = np.random.default_rng(seed)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=5e-4, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-4, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        batch = [mirrored(data[k]) if rng.random() < 0.5 else data[k] for k in rng.integers(0, len(data), 4)]
        losses = model([image for image, _ in batch], [target for _, target in batch])
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
        schedule.step()
    return model


def mirrored(example: Example) -> Example:
    """The mirror image."""
    image, target = example
    x0, y0, x1, y1 = target["boxes"].unbind(1)
    width = image.shape[2]
    boxes = torch.stack([width - x1, y0, width - x0, y1], 1)
    return image.flip(2), {**target, "boxes": boxes, "masks": target["masks"].flip(2)}


@dataclass(frozen=True)
class Detections:
    """As `labelmerge.tasks.instances.Found`."""

    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating]
    masks: list[dict[str, Any]]


def average_precision(model: MaskRCNN, shards: ShardSet, things: Sequence[int]) -> float:
    """AP of masks, by pycocotools."""
    task = InstanceTask(shards.space, things)
    model.eval()
    counts = []
    for place in range(len(shards)):
        sample = shards.read(place, instances=True)
        with torch.inference_mode():
            image = torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255
            (found,) = model([image.to(next(model.parameters()).device)])
            found = {key: each.cpu() for key, each in found.items()}
        masks = (found["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
        runs = [coco.encode(np.asfortranarray(mask)) for mask in masks]
        labels = np.array([things[k - 1] for k in found["labels"].tolist()], dtype=np.int64)
        at = np.array([shards.space.indices.index(index) for index in labels], dtype=np.int64)
        counts.append(task.count(sample, Detections(at, found["scores"].numpy(), runs)))
    return float(task.figures(task.total(counts)).ap)


def with_mask_rcnn(
    root: Path, pseudo: ShardSet, labelled: int, seed: int, steps: int, how: str, device: str
) -> dict[str, float]:
    """AP after learning from the few labels: at once, after filled boxes, after masks of boxes."""
    train, fresh = (ShardSet.open(root / part / "shards/coco_panoptic/train") for part in ("train", "fresh"))
    order = np.random.default_rng(seed).permutation(len(train))[:labelled].tolist()
    things = sorted(index for index in train.space.indices if index < 80)
    of = {index: place for place, index in enumerate(things)}
    few = examples(train, order, of)
    before = {index: place for place, index in enumerate(pseudo.space.indices)}
    model = mask_rcnn(1 + len(things), seed).to(device)
    if (filled := DETECTOR[how]) is not None:
        first = mask_rcnn(1 + len(before), seed).to(device)
        learn(first, examples(pseudo, range(len(pseudo)), before, filled=filled), steps, seed)
        own, learned = model.state_dict(), first.state_dict()
        model.load_state_dict({key: learned[key] if learned[key].shape == own[key].shape else own[key] for key in own})
    return {"AP": average_precision(learn(model, few, steps, seed), fresh, things)}


def with_lmseg(root: Path, labelled: int, seed: int, steps: int, how: str, device: str) -> dict[str, float]:
    """The same for LMSeg, by the commands of docs/methods.md."""
    common = ["--bank", root / "bank", "--method", "lmseg", "--device", device, "--steps", steps, "--batch-size", 12]
    settings = ["--set", "crop=64", "lr=3e-3", "warmup=20", f"seed={seed}"]
    pretrained = how != "at once"
    if pretrained and not (root / "pretrained").is_dir():
        call("train", "--shards", root / "pseudo", *common, "--out", root / "pretrained", *settings)
    out = root / ("table10-pretrained" if pretrained else "table10")
    call("compare", "--shards", root / "train/shards/coco_panoptic", *common, "--labelled", f"coco_panoptic={labelled}",
         "--eval-shards", root / "fresh/shards/coco_panoptic", "--eval-task", "instances", "--out", out,
         *settings, "--vary", f"init={root / 'pretrained'}" if pretrained else "init=")  # fmt: skip
    (results,) = out.glob("*/results.json")
    (each,) = json.loads(results.read_text())["sets"]
    return {"AP": each["instances"]["ap"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many worlds; default 3")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first world; default 0")
    parser.add_argument("--share", type=float, default=0.1, help="of COCO's images that have labels; default 0.1")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="of each training; default 300")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="NAME", help=f"of: {'; '.join(ROWS)}")
    parser.add_argument("--device", default="cpu", metavar="DEVICE")
    parser.add_argument("--results", type=Path, metavar="FILE", help="default: table10-LABELLED-STEPS.json below --out")
    parser.add_argument("--also", type=Path, nargs="+", default=(), metavar="FILE", help="results made elsewhere")
    options = parser.parse_args()
    labelled, steps, device = round(options.share * IMAGES), options.steps, options.device
    kept = Kept.open(options.results or options.out / f"table10-{labelled}-{steps}.json", options.also)
    for seed in range(options.first, options.first + options.seeds):
        root = options.out / f"world-{seed}"
        for row in (row for row in options.rows if not kept.has(seed, row)):
            draw(root, seed)
            pseudo = pseudo_masks(root, labelled, steps, device)
            network, _, how = row.partition(", ")
            if row == MADE:
                figures = score(root, pseudo, seed).figures()
            elif network == "LMSeg":
                figures = with_lmseg(root, labelled, seed, steps, how, device)
            else:
                figures = with_mask_rcnn(root, pseudo, labelled, seed, steps, how, device)
            kept.add(seed, row, figures, device)
    columns = [*Scores().figures(), "AP"]
    print("\n" + kept.table(options.rows, columns, f"%, {labelled} labelled images, {steps} steps"))


if __name__ == "__main__":
    main()
