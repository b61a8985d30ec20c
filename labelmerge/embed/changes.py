"""What becomes of the texts that a bank holds: which ones change, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.catalog import Kept, Recipe, dataset_names
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey
from labelmerge.text import counted, some


@dataclass(frozen=True)
class ChangedText:
    """A label that the bank held with another text.

    Attributes:
        key: the label, as ``<dataset>:<index>``.
        name: what it is called.
        left: the labels of other datasets that it shared its text with and no longer does, as ``<dataset>:<name>``.
        joined: those that it shares its text with now, and did not before.
    """

    key: str
    name: str
    left: tuple[str, ...]
    joined: tuple[str, ...]


def is_own(recipe: Recipe, descriptions: Path | None) -> bool:
    """Whether the texts of a dataset are a user's own: by their recipe, or by a file in `descriptions`."""
    own_file = descriptions is not None and (descriptions / f"{recipe.name}.csv").is_file()
    return own_file or recipe.argument != recipe.name


def kept_of(datasets: Sequence[Recipe], current: Bank | None, keys: Sequence[LabelKey]) -> dict[str, Kept]:
    """What wider labels keep (`Recipe.kept`) in the datasets of the bank that are a user's own, if anything."""
    named = {recipe.name: recipe.kept if recipe.name not in dataset_names() else None for recipe in datasets}
    before = current.kept if current is not None else {}
    found = {dataset: named.get(dataset, before.get(dataset)) for dataset in dict.fromkeys(key[0] for key in keys)}
    return {dataset: kept for dataset, kept in found.items() if kept is not None}


def keep_own_texts(
    datasets: set[str], before: Mapping[LabelKey, str], labels: Mapping[LabelKey, tuple[str, str]], out: Path
) -> None:
    """Raise UsageError where texts that ship would replace a user's own."""
    replaced = [key for key, text in before.items() if key[0] in datasets and key in labels and labels[key][1] != text]
    if replaced:
        names = sorted({dataset for dataset, _ in replaced})
        shown = some(f"{key[0]}:{labels[key][0]}" for key in replaced)
        raise UsageError(
            f"the bank has your own texts for {counted(len(replaced), 'label')} of {some(names)} ({shown}), and those "
            "that ship would replace them",
            where=out,
            fix="Give your own again (--descriptions DIR or the recipe's path), or accept the shipped ones (--shipped)",
        )


def changed_texts(
    before: Mapping[LabelKey, str], labels: Mapping[LabelKey, tuple[str, str]]
) -> tuple[ChangedText, ...]:
    """The labels that are in both and have another text now."""
    sharers: dict[str, list[LabelKey]] = {}
    sharing: dict[str, list[LabelKey]] = {}
    for key, text in before.items():
        sharers.setdefault(text, []).append(key)
    for key, (_, text) in labels.items():
        sharing.setdefault(text, []).append(key)

    def shown(keys: Sequence[LabelKey]) -> tuple[str, ...]:
        return tuple(f"{key[0]}:{labels[key][0]}" for key in keys)

    found = []
    for key, text in before.items():
        if key not in labels or labels[key][1] == text:
            continue
        old, new = sharers[text], sharing[labels[key][1]]
        left = [other for other in old if other[0] != key[0] and other in labels and other not in new]
        joined = [other for other in new if other[0] != key[0] and other not in old]
        found.append(ChangedText(f"{key[0]}:{key[1]}", labels[key][0], shown(left), shown(joined)))
    return tuple(found)
