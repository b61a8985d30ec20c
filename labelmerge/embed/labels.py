"""From the labels of datasets to a version of a bank, encoding only the texts that no version holds yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.catalog import Recipe, dataset_names, load_descriptions, load_mixture, load_recipe
from labelmerge.describe.prompts import PROMPT_TEMPLATE, sentence, word
from labelmerge.embed import encoders
from labelmerge.embed.bank import INDEX, PROBE, WORD_TEMPLATE, Bank, Vectors, identity_key, read_index
from labelmerge.errors import BankError, UsageError
from labelmerge.labels import LabelKey
from labelmerge.progress import Track, no_track

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedReport:
    """What `embed_labels` did.

    Attributes:
        version: the bank's version now.
        new: whether that version was not there before.
        encoder: the spec that was used.
        datasets: how many labels each dataset has in this version.
        labels: how many labels in all.
        texts: how many distinct texts, that is, vectors.
        encoded: how many of the texts were encoded now.
        reused: how many had their vector already.
        missing_descriptions: how many labels have no description and fell back to the bare prompt (0 for words).
        truncated: how many labels' texts are longer than the encoder reads.
    """

    version: str
    new: bool
    encoder: str
    datasets: Mapping[str, int]
    labels: int
    texts: int
    encoded: int
    reused: int
    missing_descriptions: int
    truncated: int


@dataclass(frozen=True)
class _Encoded:
    vector: Vectors
    tokens: int
    truncated: bool


def find_datasets(names: Sequence[str]) -> list[Recipe]:
    """The recipes that these words mean, each once.

    A word is a dataset's name, the path of a recipe (ending in ``.toml``), a mixture's name, or ``all``.

    Raises:
        UsageError: a word is none of these; the message suggests the near ones.
        RecipeError: a recipe is malformed.
    """
    found: dict[str, Recipe] = {}
    for name in names:
        for recipe in map(load_recipe, _expand(name)):
            found.setdefault(str(recipe.path), recipe)
    return list(found.values())


def _expand(name: str) -> list[str]:
    if name == "all":
        return dataset_names()
    if name.endswith(".toml") or name in dataset_names():
        return [name]
    try:
        return load_mixture(name)
    except UsageError:
        return [name]  # `load_recipe` says what is wrong with it


def embed_labels(
    datasets: Sequence[Recipe],
    out: Path,
    *,
    encoder: str | None = None,
    descriptions: Path | None = None,
    words: bool = False,
    only: bool = False,
    device: str | None = None,
    track: Track = no_track,
) -> EmbedReport:
    """Make the version of the bank in `out` that holds the labels of `datasets`, and those it already holds.

    Texts whose vector some version already has from the same encoder are not encoded again; where that is all of them,
    the encoder is not even loaded.

    Args:
        datasets: whose labels.
        out: the bank's folder; made where there is none.
        encoder: a spec; None means the bank's own, or `encoders.CLIP` for a new bank.
        descriptions: a folder of ``<dataset>.csv`` whose rows replace the shipped ones.
        words: embed the bare word of a label instead of its sentence.
        only: leave out the datasets that the bank holds and `datasets` doesn't name.
        device: for the encoder; None means a GPU if there is one.
        track: progress.

    Raises:
        UsageError: an unknown encoder or device, or a dataset named twice.
        DescriptionsError: a descriptions file is malformed.
        EncoderError: the encoder can't be had.
        BankError: the bank is damaged, holds the other kind of text, or the encoder no longer gives its vectors.
        OutputError: the bank can't be written.
    """
    prompt = WORD_TEMPLATE if words else PROMPT_TEMPLATE
    versions = read_index(out) if (out / INDEX).exists() else []
    current = Bank.load(out) if versions else None
    if current is not None and current.prompt != prompt:
        kinds = ("words", "sentences") if words else ("sentences", "words")
        raise BankError(f"is a bank of {kinds[1]}, not of {kinds[0]}", where=out, fix="Choose another --out")
    labels = _labels(datasets, descriptions, words)
    if current is not None and not only:
        named = {recipe.name for recipe in datasets}
        for key, name, text in zip(current.keys, current.names, current.texts, strict=True):
            if key[0] not in named:
                labels[key] = (name, text)
    keys = sorted(labels)
    texts = [labels[key][1] for key in keys]
    distinct = list(dict.fromkeys(texts))
    spec = encoder if encoder is not None else current.encoder if current is not None else encoders.CLIP

    identity = _recorded_identity(versions, spec)
    stored, probe = _stored(out, versions, identity, distinct)
    missing = [text for text in distinct if text not in stored]
    if missing:
        live = encoders.load_encoder(spec, device)
        if identity is None or identity_key(identity) != identity_key(live.identity):
            identity = live.identity
            stored, probe = _stored(out, versions, identity, distinct)
            missing = [text for text in distinct if text not in stored]
        if probe is None:
            probe = live.encode([PROBE])[0]
        else:
            _maker(out, versions, identity).check_encoder(live)
        vectors = live.encode(missing, track=track)
        tokens, truncated = live.count_tokens(missing)
        for row, text in enumerate(missing):
            stored[text] = _Encoded(vectors[row], tokens[row], truncated[row])
    assert identity is not None and probe is not None  # every version has them, and so has a live encoder
    bank = Bank(
        encoder=spec,
        identity={**identity, "spec": spec},
        prompt=prompt,
        keys=keys,
        names=[labels[key][0] for key in keys],
        texts=texts,
        vectors=np.stack([stored[text].vector for text in texts]),
        tokens=[stored[text].tokens for text in texts],
        truncated=[stored[text].truncated for text in texts],
        probe=probe,
    )
    version = bank.save(out)
    return EmbedReport(
        version=version,
        new=version not in {entry["version"] for entry in versions},
        encoder=spec,
        datasets=bank.count_by_dataset(),
        labels=len(bank),
        texts=len(distinct),
        encoded=len(missing),
        reused=len(distinct) - len(missing),
        missing_descriptions=0 if words else bank.described.count(False),
        truncated=sum(bank.truncated),
    )


def _labels(datasets: Sequence[Recipe], descriptions: Path | None, words: bool) -> dict[LabelKey, tuple[str, str]]:
    names = [recipe.name for recipe in datasets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{', '.join(twice)}: named twice")
    if descriptions is not None and not any((descriptions / f"{name}.csv").is_file() for name in names):
        _log.warning("%s: has no descriptions of these datasets", descriptions)
    labels: dict[LabelKey, tuple[str, str]] = {}
    for recipe in datasets:
        for row in load_descriptions(recipe, descriptions):
            text = word(row.name) if words else sentence(row.name, row.description)
            labels[recipe.name, row.index] = (row.name, text)
    return labels


def _recorded_identity(versions: Sequence[Mapping[str, Any]], spec: str) -> Mapping[str, Any] | None:
    """The identity that some version has from this very encoder, newest first."""
    if not versions:
        return None
    print_ = encoders.fingerprint(spec)
    for entry in reversed(versions):
        identity: Mapping[str, Any] = entry["identity"]
        same_weights = identity.get("weights_sha256") == print_.weights_sha256
        # Published weights go by their name: the tag of a hub says which they are.
        if identity.get("model") == print_.model and (
            same_weights if print_.weights_sha256 else identity.get("spec") == spec
        ):
            return identity
    return None


def _made_by(versions: Sequence[Mapping[str, Any]], identity: Mapping[str, Any] | None) -> Iterable[str]:
    """The names of the versions whose vectors this encoder made, newest first."""
    if identity is not None:
        for entry in reversed(versions):
            if identity_key(entry["identity"]) == identity_key(identity):
                yield entry["version"]


def _maker(out: Path, versions: Sequence[Mapping[str, Any]], identity: Mapping[str, Any]) -> Bank:
    return Bank.load(out, next(iter(_made_by(versions, identity))))


def _stored(
    out: Path, versions: Sequence[Mapping[str, Any]], identity: Mapping[str, Any] | None, texts: Sequence[str]
) -> tuple[dict[str, _Encoded], Vectors | None]:
    """What the bank's versions hold of `texts` from this encoder, and its vector of `PROBE`."""
    stored: dict[str, _Encoded] = {}
    probe: Vectors | None = None
    wanted = set(texts)
    for version in _made_by(versions, identity):
        bank = Bank.load(out, version)
        probe = bank.probe if probe is None else probe
        for row, text in enumerate(bank.texts):
            if text in wanted:
                stored.setdefault(text, _Encoded(bank.vectors[row], bank.tokens[row], bank.truncated[row]))
        if len(stored) == len(wanted):
            break
    return stored, probe
