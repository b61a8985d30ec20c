"""The known datasets: the only file that opens `label_descriptions/` and `shards/`.

A recipe is a TOML file that says what a dataset is. Shipped recipes go by name; a user's own by path. A class list is
a dataset of labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from labelmerge.class_lists import SUFFIXES, is_class_list, list_name, read_class_list
from labelmerge.descriptions import Description, label_space, read_descriptions
from labelmerge.errors import DescriptionsError, LabelmergeError, RecipeError, UsageError, did_you_mean
from labelmerge.files import read_text
from labelmerge.guesses import no_such_file, unknown_dataset
from labelmerge.labels import LabelSpace
from labelmerge.parsing import parse_toml

ANNOTATION_TYPES = ("mask", "noisy_mask", "box", "image")
ROLES = ("train", "eval")
SPLITS = ("train", "val", "test")
UNLABELED = "unlabeled"
"""The split of a dataset's images that have no labels at all, and the key of `layout` that says where they lie."""
Kept = Literal["parts", "everything"]
"""What of narrower labels a wider one may stand for all the same."""
KEPT = get_args(Kept)
IMAGE_FORMATS = ("auto", "jpg", "png")
NO_READER = "none"


@dataclass(frozen=True)
class Variant:
    """One way a dataset lies on disk: chosen when every `detect` pattern matches something under the root, and no
    `unless` pattern does.

    What it sets replaces the recipe's own key of the same name, as a whole table.
    """

    name: str
    detect: tuple[str, ...]
    unless: tuple[str, ...] = ()
    reader: str | None = None
    layout: Mapping[str, Any] | None = None
    ids: Mapping[str, Any] | None = None
    splits: Mapping[str, str] | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Recipe:
    """What a dataset is; see docs/recipes.md for every key.

    Attributes:
        name: the dataset's name: lower case letters, digits and ``_``.
        annotation_type: ``mask`` | ``noisy_mask`` | ``box`` | ``image`` (images alone).
        reader: a name from `labelmerge.sharding.readers.READERS`, or ``none``: labels to embed, no format to read yet.
        layout: what lies where under the root; which keys there are is the reader's affair.
        ids: how raw mask values become class indices; likewise.
        options: further settings of the reader.
        splits: what ``{split}`` becomes for each of `train`, `val`, `test`; the same word where absent, and "" for a
            split that has no labels.
        folders: folders that the official archives make: the root may be one of them or hold one of them.
        variants: other ways the same dataset lies on disk.
        image_format: the shard member for images: ``jpg``, ``png`` or ``auto`` (jpg where all images are JPEG files).
        role: ``train`` or ``eval`` (never trained on).
        annotated: names of the classes that the dataset was annotated for, wherever they occur in its images; None: all
            of its classes. The others never count as negatives in training.
        overlapping: whether one thing may have any of several labels, as a man that of *Man* or of *Person*.
        things: names of the classes whose objects are told apart; None: the reader's options may say.
        title, homepage, licence: for people.
        descriptions: path of the descriptions CSV.
        path: the TOML file.
        text: its content, stored in every manifest.
    """

    name: str
    annotation_type: str
    reader: str
    descriptions: Path
    path: Path
    text: str = field(repr=False)
    layout: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    image_format: str = "auto"
    role: str = "train"
    annotated: tuple[str, ...] | None = None
    things: tuple[str, ...] | None = None
    overlapping: bool = False
    title: str = ""
    homepage: str = ""
    licence: str = ""

    @property
    def about(self) -> str:
        """The comments that open the recipe: where to get the dataset, and what it looks like on disk."""
        opening = takewhile(lambda line: line.startswith("#"), self.text.splitlines())
        return "\n".join(line[1:].removeprefix(" ") for line in opening)

    @property
    def kept(self) -> Kept | None:
        """What of narrower labels a wider label of the list may stand for all the same; None: nothing.

        Where things are outlined one by one (boxes, noisy masks), their parts; where labels overlap, everything.
        """
        outlined = self.annotation_type in ("box", "noisy_mask")
        return "everything" if self.overlapping else "parts" if outlined else None

    @property
    def argument(self) -> str:
        """What the command line calls this recipe: the name of a shipped one, the path of a user's own."""
        return self.name if self.path.parent == _recipes_folder() else str(self.path)


def dataset_names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _recipes_folder().iterdir() if entry.suffix == ".toml")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by its name, or a user's own by its path (anything that ends in ``.toml``).

    A class list (``.csv``, ``.tsv``, ``.txt``) is a dataset of labels without images.

    Raises:
        UsageError: no shipped recipe has this name; the message suggests the near ones and what lies here.
        RecipeError: the file is malformed; all its problems are in one message.
    """
    text = str(name_or_path)
    path = Path(text)
    if text.endswith(".toml") or is_class_list(text):
        if not path.is_file():
            raise no_such_file(path)
        return _of_class_list(path) if is_class_list(text) else _parse(path, path.parent)
    names = dataset_names()
    if text not in names and path.is_dir() and not Path(f"{text}.toml").is_file():
        raise UsageError("is a folder", where=path, fix=f"`labelmerge recipe {path}` looks at it and writes its recipe")
    if text not in names and path.is_file():
        fix = f"A recipe ends in .toml, a list of class names in {' or '.join(SUFFIXES)}"
        raise UsageError("is neither a recipe nor a list of class names", where=path, fix=fix)
    if text not in names:
        raise unknown_dataset(text, names)
    return _parse(_recipes_folder() / f"{text}.toml", _descriptions_folder())


def _of_class_list(path: Path) -> Recipe:
    return Recipe(list_name(path), "mask", NO_READER, descriptions=path, path=path, text="")


def load_descriptions(recipe: Recipe, overrides: Path | None = None) -> list[Description]:
    """The descriptions of a recipe's classes, by ascending index.

    Args:
        recipe: whose classes.
        overrides: a folder whose ``<dataset>.csv``, where there is one, says more: each of its rows replaces the row
            with the same index; the name must be the same.

    Raises:
        DescriptionsError: a file is malformed, or an override's row fits no class.
        RecipeError: a class's index fits no mask.
    """
    rows = {row.index: row for row in _own_rows(recipe)}
    override = overrides / f"{recipe.name}.csv" if overrides is not None else None
    if override is not None and override.is_file():
        for row in read_descriptions(override):
            known = rows.get(row.index)
            if known is None or known.name != row.name:
                have = f"{known.name!r}" if known else "no class"
                raise DescriptionsError(
                    f"index {row.index} is {row.name!r} here, but {recipe.name} has {have} there",
                    where=override,
                    fix="Index and name must be the dataset's own",
                )
            rows[row.index] = row
    ordered = [rows[index] for index in sorted(rows)]
    label_space(recipe.name, ordered)  # raises where an index fits no mask
    return ordered


def refuse_taken_name(recipe: Recipe) -> bool:
    """Whether a recipe of the user's own is called as a dataset that ships, and has the same classes.

    Raises:
        UsageError: it has other classes, and so would be taken for what it is not.
    """
    if recipe.argument == recipe.name or recipe.name not in dataset_names():
        return False
    space, shipped = load_label_space(recipe), load_label_space(load_recipe(recipe.name))
    if space.hash != shipped.hash:
        is_list = recipe.path == recipe.descriptions
        raise UsageError(
            f"is called {recipe.name}, like a shipped dataset, but has other classes ({len(space)} here, "
            f"{len(shipped)} there)",
            where=recipe.path,
            fix="Give the file another name" if is_list else "Give it another `name`",
        )
    return True


def load_label_space(recipe: Recipe) -> LabelSpace:
    """The recipe's full label space. Raises DescriptionsError or RecipeError."""
    return label_space(recipe.name, _own_rows(recipe))


def refuse_unknown_classes(recipe: Recipe, space: LabelSpace) -> None:
    """Make sure that a recipe's `annotated` and `things` list classes that there are. Raises RecipeError."""
    for key, listed in (("annotated", recipe.annotated), ("things", recipe.things)):
        unknown = [name for name in listed or () if name not in space.names]
        if unknown:
            raise RecipeError(
                f"{key!r} lists {unknown[0]!r}, which is not a class of {space.name}",
                where=recipe.path,
                fix=did_you_mean(unknown[0], space.names),
            )


def _own_rows(recipe: Recipe) -> list[Description]:
    if not recipe.descriptions.exists():
        fix = f"The recipe of {recipe.name} names it under `descriptions`, as a path beside the recipe"
        raise DescriptionsError("no such file", where=recipe.descriptions, fix=fix)
    return (read_class_list if recipe.path == recipe.descriptions else read_descriptions)(recipe.descriptions)


def mixture_names() -> list[str]:
    """The names of the shipped mixtures, sorted."""
    folder = _recipes_folder() / "mixtures"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.suffix == ".toml")


def load_mixture(name: str) -> list[str]:
    """The dataset names of a shipped mixture (`shards/mixtures/<name>.toml`). Raises UsageError."""
    if name not in (names := mixture_names()):
        raise UsageError(f"unknown mixture {name!r}", fix=did_you_mean(name, names))
    file = _recipes_folder() / "mixtures" / f"{name}.toml"
    datasets = parse_toml(file.read_text(encoding="utf-8"))["datasets"]
    return [str(dataset) for dataset in datasets]


def words_file() -> Path:
    """Words that no shipped dataset has, and what they mean (`labelmerge.merge.everyday`)."""
    return _descriptions_folder() / "words.csv"


def homonyms_file() -> Path:
    """Further meanings of words (`labelmerge.merge.homonyms`)."""
    return _descriptions_folder() / "homonyms.csv"


def concepts_file() -> Path:
    """The graph of concepts that ships (`labelmerge.merge.concepts`)."""
    return _descriptions_folder() / "concepts.csv"


def _recipes_folder() -> Path:
    return _folder("labelmerge.shards")


def _descriptions_folder() -> Path:
    return _folder("labelmerge.label_descriptions")


def _folder(package: str) -> Path:
    folder = files(package)
    if not isinstance(folder, Path):
        raise LabelmergeError("labelmerge must be installed as plain files, not inside a zip archive")
    return folder


# Names begin the names of tar members, which have 100 characters at most.
_MAX_NAME = 60
_STRINGS = ("name", "annotation_type", "reader", "descriptions")
_OPTIONAL_STRINGS = ("image_format", "role", "title", "homepage", "licence")
_TABLES = ("layout", "ids", "options", "splits")
_VARIANT_KEYS = ("name", "detect", "unless", "reader", *_TABLES)


def _parse(path: Path, descriptions_folder: Path) -> Recipe:
    text = read_text(path, RecipeError).replace("\r\n", "\n").replace("\r", "\n")
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise RecipeError(f"can't be read as TOML ({error})", where=path) from error
    problems = _problems(data)
    if problems:
        raise RecipeError("; ".join(problems), where=path, fix="docs/recipes.md lists every key")
    variants = tuple(
        Variant(**{**variant, "detect": tuple(variant["detect"]), "unless": tuple(variant.get("unless", ()))})
        for variant in data.pop("variants", [])
    )
    return Recipe(
        **{
            **data,
            "descriptions": descriptions_folder / data["descriptions"],
            "folders": tuple(data.get("folders", ())),
            **{key: tuple(data[key]) if key in data else None for key in ("annotated", "things")},
            "variants": variants,
            "path": path,
            "text": text,
        }
    )


def _problems(data: dict[str, Any]) -> list[str]:
    known = (*_STRINGS, *_OPTIONAL_STRINGS, *_TABLES, "folders", "annotated", "things", "overlapping", "variants")
    problems = [f"unknown key {key!r}" for key in data if key not in known]
    required = _STRINGS if data.get("reader") == NO_READER else (*_STRINGS, "layout")
    problems += [f"{key!r} is missing" for key in required if key not in data]
    for key, value in data.items():
        if key in (*_STRINGS, *_OPTIONAL_STRINGS) and not isinstance(value, str):
            problems.append(f"{key!r} must be a string")
    name = data.get("name", "")
    if isinstance(name, str) and (not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789_")):
        problems.append(f"name {name!r} must be lower case letters, digits and '_'")
    if isinstance(name, str) and len(name) > _MAX_NAME:
        problems.append(f"name {name!r} is longer than {_MAX_NAME} characters")
    for key, allowed in (
        ("annotation_type", ANNOTATION_TYPES),
        ("role", ROLES),
        ("image_format", IMAGE_FORMATS),
    ):
        if key in data and data[key] not in allowed:
            problems.append(f"{key} {data[key]!r} must be one of {', '.join(allowed)}")
    problems += _table_problems(data)
    if not isinstance(data.get("variants", []), list):
        problems.append("'variants' must be a list of tables")
    if not data.get("annotated", ["?"]) or not _are_strings(data.get("annotated", [])):
        problems.append("'annotated' must be a list of class names, or left out where all classes are annotated")
    if not _are_strings(data.get("things", [])):
        problems.append("'things' must be a list of class names")
    if not isinstance(data.get("overlapping", False), bool):
        problems.append("'overlapping' must be true or false")
    if not _are_strings(data.get("folders", [])):
        problems.append("'folders' must be a list of names")
    for number, variant in enumerate(data.get("variants", []) if isinstance(data.get("variants", []), list) else []):
        where = f"variants[{number}]"
        if not isinstance(variant, dict):
            problems.append(f"{where} must be a table")
            continue
        problems += [f"{where}: unknown key {key!r}" for key in variant if key not in _VARIANT_KEYS]
        problems += [f"{where}: {key!r} is missing" for key in ("name", "detect") if key not in variant]
        problems += [f"{where}: {problem}" for problem in _table_problems(variant)]
        if not isinstance(variant.get("name", "?"), str) or not variant.get("name", "?"):
            problems.append(f"{where}: 'name' must be a string that is not empty")
        if not variant.get("detect", ["?"]) or not _are_strings(variant.get("detect", [])):
            problems.append(f"{where}: 'detect' must be a list of patterns")
        if not _are_strings(variant.get("unless", [])):
            problems.append(f"{where}: 'unless' must be a list of patterns")
        if not isinstance(variant.get("reader", ""), str):
            problems.append(f"{where}: 'reader' must be a string")
    return problems


def _table_problems(data: dict[str, Any]) -> list[str]:
    """What is wrong with the tables that a recipe and its variants can both have."""
    problems = [f"{key!r} must be a table" for key in _TABLES if not isinstance(data.get(key, {}), dict)]
    splits = data.get("splits", {})
    if isinstance(splits, dict):
        problems += [f"split {key!r} must be one of {', '.join(SPLITS)}" for key in splits if key not in SPLITS]
        problems += [f"splits.{key} must be a string" for key, value in splits.items() if not isinstance(value, str)]
    return problems


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
