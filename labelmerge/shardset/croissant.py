"""MLCommons Croissant metadata of a split's shards (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html).

`croissant.json` lies beside the manifest and follows from it alone. It says what the manifest knows and nothing else:
who made the dataset and when is not in a recipe, so it is not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmerge import __version__
from labelmerge.files import write_json
from labelmerge.labels import LabelSpace
from labelmerge.parsing import parse_json
from labelmerge.shardset.manifest import recipe_keys

CROISSANT = "croissant.json"

_CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# The context that the specification prescribes.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}

# Member: encoding, the name of its record set, the name of its field, what it is.
_MEMBERS = {
    "json": (
        "application/json",
        "samples",
        "json",
        "What is known of the sample, a JSON object: key, dataset, split, annotation_type, label_space (hash of the "
        "classes), height, width, original_height, original_width (pixels), source.path, source.native_id and "
        "source.sha256 of the source image, and the JSON texts present (class indices), boxes (bbox: [x0, y0, x1, y1] "
        "in pixels, class_index, …) and segments (id: value in instances.png, class_index, …).",
    ),
    "jpg": ("image/jpeg", "images", "image", "The image."),
    "png": ("image/png", "images", "image", "The image."),
    "mask.png": ("image/png", "masks", "mask", "Class index of every pixel; {ignore} where there is no label."),
    "instances.png": ("image/png", "instances", "ids", "Segment id of every pixel; 0 where there is no segment."),
    "depth.png": ("image/png", "depths", "depth", "Depth of every pixel in the manifest's unit; 0 where unknown."),
    "box_embeddings.npy": (
        "application/octet-stream",
        "box_embeddings",
        "npy",
        "Teacher embeddings of the boxes, in their order: float16 [boxes, D] in NumPy's file format.",
    ),
}


def write_croissant(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``croissant.json`` into a split's folder; raises OutputError."""
    write_json(folder / CROISSANT, croissant(manifest))


def croissant_problem(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Why a split's ``croissant.json`` is not what its manifest says; None where it is, or where there is none.

    Words may be another version's; files, hashes and classes may not.
    """
    try:
        found = parse_json((folder / CROISSANT).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"can't be read ({error.strerror})"
    except ValueError as error:
        return f"is not JSON ({error})"
    wanted = croissant(manifest)
    if found == wanted or (manifest["labelmerge"] != __version__ and _facts(found) == _facts(wanted)):
        return None
    return "does not agree with the manifest"


def _facts(metadata: Any) -> Any:
    """The files of a Croissant description and its classes; None where it is malformed."""
    try:
        files = [
            (each["@id"], each.get("sha256"), each.get("contentSize"), each.get("includes"))
            for each in metadata["distribution"]
        ]
        return files, [each["data"] for each in metadata["recordSet"] if "data" in each]
    except (KeyError, TypeError, AttributeError):
        return None


def croissant(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The Croissant 1.0 metadata (JSON-LD) of one split.

    Licence and homepage are the recipe's. Every tar has its size and SHA-256; there is a record set for every kind of
    member (`samples` has the JSON), each with the sample's key, and one of the `classes`.

    Args:
        manifest: as `read_manifest` gives it.
    """
    recipe = recipe_keys(manifest)
    dataset, split = manifest["dataset"], manifest["split"]
    title = recipe.get("title") or dataset
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": entry["name"],
            "name": entry["name"],
            "contentUrl": entry["name"],
            "contentSize": f"{entry['bytes']} B",
            "encodingFormat": "application/x-tar",
            "sha256": entry["sha256"],
        }
        for entry in manifest["shards"]
    ]
    facts = {
        "name": f"{dataset}-{split}",
        "description": (
            f"{title}, {split} split: {manifest['counts']['written']} samples, annotation type "
            f"{manifest['annotation_type']}, as WebDataset shards made by labelmerge {manifest['labelmerge']} with "
            f"`{manifest['reproduce']}`."
        ),
        "license": recipe.get("licence"),
        "url": recipe.get("homepage"),
    }
    members = [name for name in _MEMBERS if name in manifest["members"]]
    space = LabelSpace.from_json(manifest["label_space"])
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        **{name: fact for name, fact in facts.items() if fact},
        "distribution": [*tars, *(_file_set(manifest, name) for name in members)],
        "recordSet": [*(_records(name, space.ignore_index) for name in members), _classes(space)],
    }


def _file_set(manifest: Mapping[str, Any], member: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{member}-files",
        "name": f"{member}-files",
        "containedIn": [{"@id": entry["name"]} for entry in manifest["shards"]],
        "encodingFormat": _MEMBERS[member][0],
        # Digits one by one: `*.png` would be the masks too.
        "includes": f"{manifest['dataset']}-{manifest['split']}-{'[0-9]' * 9}.{member}",
    }


def _records(member: str, ignore: int) -> dict[str, Any]:
    encoding, name, field, about = _MEMBERS[member]
    about = about.format(ignore=ignore)
    # Contents as a whole, because the reference implementation parses no JSON that lies in an archive.
    files = {"fileSet": {"@id": f"{member}-files"}}
    key = {**files, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)\..*$"}}
    content = {**files, "extract": {"fileProperty": "content"}}
    kind = "ImageObject" if encoding.startswith("image/") else "Text"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": about,
        "key": {"@id": f"{name}/key"},
        "field": [
            _field(name, "key", "Text", "The sample's name: the same in all record sets.", key),
            _field(name, field, kind, about, content),
        ],
    }


def _classes(space: LabelSpace) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "What the class indices mean.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/index"},
        "field": [
            _field("classes", "index", "Integer", "The value in masks, boxes and segments.", None),
            _field("classes", "name", "Text", "The class's official name.", None),
        ],
        "data": [
            {"classes/index": index, "classes/name": name}
            for index, name in zip(space.indices, space.names, strict=True)
        ],
    }


def _field(record_set: str, name: str, kind: str, about: str, source: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": about,
        "dataType": f"sc:{kind}",
        **({} if source is None else {"source": source}),
    }
