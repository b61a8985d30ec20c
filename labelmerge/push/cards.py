"""Cards: README.md with YAML front matter, as the Hugging Face hub reads it.

The keys: hub-docs, "Dataset Cards" and "Model Cards". Everything else in a card follows from the files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge.bank.store import read_index
from labelmerge.errors import UsageError
from labelmerge.files import read_text
from labelmerge.labels import LabelSpace
from labelmerge.parsing import parse_json
from labelmerge.shardset.manifest import read_manifest, recipe_keys, role
from labelmerge.text import counted, harmless_markdown, some
from labelmerge.upload import is_hub

_SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]
_TASK = "image-segmentation"
_FRONT = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_SPLITS = {"val": "validation"}  # what the hub calls them


@dataclass(frozen=True)
class Card:
    """A card.

    Attributes:
        front: the front matter, without the licence.
        body: Markdown.
    """

    front: Mapping[str, Any]
    body: str

    def text(self, licence: str | None) -> str:
        """The card's text. licence: None: unknown."""
        return f"---\n{_yaml({'license': licence or 'unknown', **self.front})}---\n\n{self.body}"


def with_licence(text: str, licence: str) -> str:
    """A card with this licence in its front matter, where it had another or none."""
    found = _FRONT.match(text)
    if found is None:
        return f"---\n{_yaml({'license': licence})}---\n\n{text}"
    front = re.sub(r"^license:.*\n(?:[ -].*\n)*", "", found[1], flags=re.MULTILINE)
    return f"---\n{_yaml({'license': licence})}{front}---\n{text[found.end() :]}"


def shards_card(folder: Path, splits: Sequence[Path], url: str) -> Card:
    """Of shards. Raises ShardError."""
    rows, licences, configs = [], {}, []
    patterns: dict[str, list[dict[str, str]]] = {}
    spaces: dict[str, LabelSpace] = {}
    pixels: dict[str, Counter[str]] = {}
    boxes: dict[str, Counter[str]] = {}
    images, trains = 0, False
    for split in splits:
        manifest, space = read_manifest(split)
        dataset, name, written = manifest["dataset"], manifest["split"], int(manifest["counts"]["written"])
        recipe = recipe_keys(manifest)
        images += written
        size = sum(int(shard["bytes"]) for shard in manifest["shards"])
        kind = manifest["annotation_type"].replace("_", " ")
        rows.append((dataset, name, f"{written:,}", str(len(manifest["shards"])), _size(size), kind))
        place = split.relative_to(folder).as_posix()
        path = "*.tar" if place == "." else f"{place}/*.tar"
        patterns.setdefault(dataset, []).append({"split": _SPLITS.get(name, name), "path": path})
        trains |= role(manifest) != "eval"
        pixels.setdefault(dataset, Counter()).update(manifest["class_pixels"])
        boxes.setdefault(dataset, Counter()).update(manifest["class_boxes"])
        if dataset not in spaces:
            spaces[dataset] = space
            home = recipe.get("homepage") or ""
            licences[dataset] = f"{recipe.get('licence') or 'unknown'}{f' ({home})' if home else ''}"
    for dataset, files in patterns.items():
        configs.append({"config_name": dataset, "data_files": files})
    names = sorted(patterns)
    use = (
        f"train --shards {url} --bank bank --out run"
        if trains
        else f"eval --checkpoint run --shards {url} --out results.json"
    )
    classes = [
        f"### {_plain(dataset)}\n\n"
        + _table(("index", "class", "occurs"), _classes(space, pixels[dataset], boxes[dataset]))
        for dataset, space in spaces.items()
    ]
    body = (
        f"# {_plain(_title(url))}\n\n"
        f"{counted(images, 'image')} of {_plain(some(names, 20))} with their labels, as WebDataset shards that "
        "labelmerge wrote. `manifest.json` of each split says what is in "
        "it, and has the hash of every shard.\n\n"
        + _table(("dataset", "split", "images", "shards", "size", "annotation"), rows)
        + "\n## How to load\n\n"
        + _console(_install(url), f"labelmerge verify {url}", f"labelmerge {use}")
        + (_python_datasets(url, names[0], [files["split"] for files in patterns[names[0]]]) if is_hub(url) else "")
        + "\nOf a sample, `jpg` or `png` is the image, `mask.png` the class of each pixel, `json` all else.\n"
        + "\n## Licences\n\n"
        + _list(f"{dataset}: {licence}" for dataset, licence in licences.items())
        + "\n## Classes\n\n"
        + "\n".join(classes)
    )
    return Card({**_dataset(url, images, ["webdataset"]), "configs": configs}, body)


def export_card(folder: Path, url: str) -> Card:
    """Of what `export` wrote for other trainers. Raises UsageError where its list of classes can't be read."""
    names = read_text(folder / "classes.txt", UsageError).splitlines()
    classes = [(str(index), name) for index, name in enumerate(names)]
    pictures = sum(1 for path in folder.rglob("*") if path.suffix in (".jpg", ".png") and _is_image(path, folder))
    body = (
        f"# {_plain(_title(url))}\n\n"
        f"{counted(pictures, 'image')} with {counted(len(classes), 'class', 'classes')}, as {_format(folder)}, "
        "exported by labelmerge.\n\n"
        "## How to load\n\n"
        + (_console(f"hf download --repo-type dataset {_repo(url)} --local-dir data") if is_hub(url) else f"{url}\n")
        + "\n## Classes\n\n"
        + _table(("value", "class"), classes)
    )
    return Card(_dataset(url, pictures, []), body)


def bank_card(folder: Path, url: str) -> Card:
    """Of an embedding bank. Raises BankError."""
    versions = read_index(folder)
    newest = versions[-1]
    rows = [(name, str(count)) for name, count in sorted(newest["datasets"].items())]
    body = (
        f"# {_plain(_title(url))}\n\n"
        f"What {counted(int(newest['labels']), 'label')} of {counted(len(rows), 'segmentation dataset')} mean, as "
        f"vectors of {newest['dim']} dimensions: an embedding bank that "
        "labelmerge wrote. Labels of one meaning lie close together.\n\n"
        f"- version: `{newest['version']}`\n"
        f"- encoder: `{_plain(newest['encoder'])}`\n"
        + "".join(f"- text: `{_plain(line)}`\n" for line in newest["prompt"].split("\n"))
        + "\n## How to load\n\n"
        + _console(_install(url), f"labelmerge bank show {url}", f"labelmerge merge --bank {url} --out merge")
        + "\nA row of the Parquet file has dataset, index, name, text and embedding.\n"
        + "\n## Labels\n\n"
        + _table(("dataset", "labels"), rows)
    )
    files = [{"split": "train", "path": f"{newest['version']}.parquet"}]
    front = {
        "pretty_name": _title(url),
        "tags": ["labelmerge", "embeddings"],
        "size_categories": [_size_category(int(newest["labels"]))],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return Card(front, body)


def run_card(folder: Path, checkpoint: Path, url: str) -> Card:
    """Of a trained model. Raises CheckpointError."""
    from labelmerge.model.checkpoint import read_config, read_meta

    meta, config = read_meta(checkpoint), read_config(checkpoint)
    columns = [str(name) for name in meta.get("columns", [])]
    datasets = [str(name) for name in meta.get("datasets", [])]
    results = _results(folder, str(meta["sha256"].get("model.safetensors"))[:16])
    labels = ", ".join(columns[:3]).replace('"', "") or "road, sky"
    body = (
        f"# {_plain(_title(url))}\n\n"
        "A network that segments images by what labels mean, trained on "
        f"{_plain(some(datasets, 20)) or 'datasets'} with labelmerge.\n\n"
        f"- network: `{_plain(meta['model']['name'])}`, {meta['step']:,} steps by the method "
        f"`{_plain(config.get('method', 'ssiw'))}`, labels merged by `{_plain(meta.get('merge', '?'))}`\n"
        f"- label vectors: `{_plain(meta.get('encoder', '?'))}`\n"
        + "\n## How to use\n\n"
        + _console(
            _install(url, str(meta.get("encoder", ""))),
            f'labelmerge predict photo.jpg --checkpoint {url} --labels "{_plain(labels)}" --out masks',
        )
        + ("\n## Results\n\n" + _table(("set", "images", "mIoU"), results) if results else "")
        + f"\n## Labels\n\nIt was trained with {counted(len(columns), 'class', 'classes')}:\n\n"
        + _list(columns)
    )
    front = {"library_name": "labelmerge", "pipeline_tag": _TASK, "tags": ["labelmerge", "semantic-segmentation"]}
    return Card(front, body)


# --- parts ------------------------------------------------------------------------------------------------------------


def _results(folder: Path, weights: str) -> list[tuple[str, str, str]]:
    """Set, images and mIoU of the results in a run's folder that are of these weights."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = parse_json(path.read_bytes())
            if content["protocol"]["checkpoint"]["hash"] != weights:
                continue
            rows += [
                (f"{entry['dataset']} {entry['split']}", f"{entry['images']:,}", f"{entry['miou']:.1%}")
                for entry in content["sets"]
            ]
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return rows


def _is_image(path: Path, folder: Path) -> bool:
    """Whether it is an image, and no annotation."""
    return not {"masks", "annotations"} & set(path.relative_to(folder).parts)


def _format(folder: Path) -> str:
    if (folder / "data.yaml").is_file():
        return "YOLO's text files"
    return "COCO files" if (folder / "annotations").is_dir() else "images and index PNGs"


def _dataset(url: str, images: int, tags: list[str]) -> dict[str, Any]:
    return {
        "pretty_name": _title(url),
        "task_categories": [_TASK],
        "tags": ["labelmerge", *tags],
        "size_categories": [_size_category(images)],
    }


def _size_category(count: int) -> str:
    return next((word for limit, word in _SIZES if count < limit), "10M<n<100M")


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _title(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _repo(url: str) -> str:
    return url.removeprefix("hf://").removeprefix("datasets/")


def _install(url: str, encoder: str = "") -> str:
    """How to get what the commands below need: file systems for other URLs than the hub's, or the text encoder."""
    extras = ["offline"] * encoder.startswith("offline")
    extras += ["remote"] * (url.partition("://")[0] not in ("hf", "file"))
    return "pip install labelmerge-seg" if not extras else f"pip install 'labelmerge-seg[{','.join(extras)}]'"


def _classes(space: LabelSpace, pixels: Mapping[str, int], boxes: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Number, name and how often of each class; of all splits together."""
    whole, told = sum(pixels.values()), bool(pixels or boxes)
    rows = []
    for index, name in zip(space.indices, space.names, strict=True):
        some_pixels, some_boxes = pixels.get(str(index), 0), boxes.get(str(index), 0)
        share = f"{some_pixels / whole:.2%}" if some_pixels > whole / 20_000 else "less than 0.01%"
        parts = [f"{share} of pixels"] * bool(some_pixels)
        parts += [counted(some_boxes, "box", "boxes")] * bool(some_boxes)
        rows.append((str(index), name, ", ".join(parts) or ("never" if told else "")))
    return rows


def _python_datasets(url: str, config: str, splits: Sequence[str]) -> str:
    split = "train" if "train" in splits else splits[0]
    call = f'load_dataset("{_repo(url)}", {json.dumps(config)}, split={json.dumps(split)}, streaming=True)'
    return f"\n```python\nfrom datasets import load_dataset\n\nfor sample in {call}:\n    ...\n```\n"


def _console(*lines: str) -> str:
    return "```console\n" + "".join(f"$ {line}\n" for line in lines) + "```\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]  # of which nothing is escaped: no character of Markdown's is in it
    return "".join(f"| {' | '.join(map(_plain, line))} |\n" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {_plain(line)}\n" for line in lines)


def _plain(text: object) -> str:
    """A name from a file, as Markdown that is nothing but its letters."""
    return harmless_markdown(str(text)).replace("|", r"\|").replace("`", "'")


def _yaml(front: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    return text
