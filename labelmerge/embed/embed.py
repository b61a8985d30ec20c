"""From the labels of datasets to a version of a bank, encoding only the texts that no version holds yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.bank.bank import WORD_TEMPLATE, Bank, Vectors
from labelmerge.bank.prompt import Prompt
from labelmerge.bank.store import INDEX, PROBE, bank_lock, identity_key, read_index
from labelmerge.catalog import (
    Recipe,
    load_descriptions,
)
from labelmerge.embed.changes import ChangedText, changed_texts, is_own, keep_own_texts, kept_of
from labelmerge.encoders import encoders
from labelmerge.encoders.encoders import TextEncoder
from labelmerge.errors import BankError, UsageError
from labelmerge.files import say_others
from labelmerge.labels import LabelKey
from labelmerge.names import prompt_name
from labelmerge.progress import Track, no_track, once
from labelmerge.text import some

SEVERAL = ("average", "keep")
"""What becomes of the vectors of a label's several sentences."""

_ELSEWHERE = "Choose another --out"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedReport:
    """What `embed_labels` did.

    Attributes:
        version: the bank's version now.
        new: whether that version was not there before.
        back: whether it was, and was not the newest: an earlier version that is the newest again.
        encoder: the spec that was used.
        datasets: how many labels each dataset has in this version.
        labels: how many labels in all.
        texts: how many distinct texts, that is, vectors.
        encoded: how many of the texts were encoded now.
        reused: how many had their vector already.
        missing_descriptions: how many labels have no description and fell back to the bare prompt (0 for words).
        truncated: how many labels' texts are longer than the encoder reads.
        truncated_labels: which, as ``<dataset>:<index> <name>``.
        prompt: the templates of the texts.
        several: what becomes of a label's several sentences: ``average`` or ``keep``.
        sentences: how many sentences the texts have in all.
        changed: the labels whose text is another than in the version before.
    """

    version: str
    new: bool
    back: bool
    encoder: str
    datasets: Mapping[str, int]
    labels: int
    texts: int
    encoded: int
    reused: int
    missing_descriptions: int
    truncated: int
    truncated_labels: tuple[str, ...]
    prompt: tuple[str, ...]
    several: str
    sentences: int
    changed: tuple[ChangedText, ...]


@dataclass(frozen=True)
class _Encoded:
    """A text's vector, and those of its sentences where they are kept."""

    vector: Vectors
    tokens: int
    truncated: bool
    parts: Vectors | None


def embed_labels(
    datasets: Sequence[Recipe],
    out: Path,
    *,
    encoder: str | None = None,
    descriptions: Path | None = None,
    words: bool = False,
    prompts: Sequence[str] = (),
    several: str | None = None,
    only: bool = False,
    shipped: bool = False,
    device: str | None = None,
    track: Track = no_track,
) -> EmbedReport:
    """Make the version of the bank in `out` that holds the labels of `datasets`, and those it already holds.

    Texts whose vector some version already has from the same encoder are not encoded again; where that is all of them,
    the encoder is not even loaded. Another process that writes into the bank is waited for, so that nothing is lost.

    Args:
        datasets: whose labels.
        out: the bank's folder; made where there is none.
        encoder: a spec; None means the bank's own, or `encoders.CLIP` for a new bank.
        descriptions: a folder of ``<dataset>.csv`` whose rows replace the shipped ones.
        words: embed the bare word of a label instead of its sentence.
        prompts: templates of the texts (`labelmerge.bank.prompt.Prompt`); none means the bank's own, or the paper's
            for a new bank.
        several: ``average``: a label of several sentences has the normalised mean of their vectors; ``keep``: it has
            that, and each of them beside it. None means the bank's own, or ``average`` for a new bank.
        only: leave out the datasets that the bank holds and `datasets` doesn't name.
        shipped: let the texts that ship replace a user's own that the bank holds.
        device: for the encoder; None means a GPU if there is one.
        track: progress.

    Raises:
        UsageError: an unknown encoder, device or way to treat several sentences; a prompt that is not a template; a
            dataset named twice; texts that ship would replace a user's own without `shipped`.
        DescriptionsError: a descriptions file is malformed.
        EncoderError: the encoder is not available.
        BankError: the bank is damaged, has other prompts, names a label otherwise, or the encoder is not the one that
            it was made with or no longer gives its vectors.
        OutputError: the bank can't be written.
    """
    if words and prompts:
        raise UsageError("--words and --prompt can't be combined", fix=f"Words are the prompt {WORD_TEMPLATE!r}")
    if several not in (None, *SEVERAL):
        raise UsageError(f"several sentences can't be {several!r}", fix=f"Known: {', '.join(SEVERAL)}")
    asked = Prompt.of([WORD_TEMPLATE] if words else prompts) if words or prompts else None
    rows = _rows(datasets, descriptions)
    if encoder is not None:
        encoders.fingerprint(encoder)  # says what is wrong with it before anything is written
    say_others(out, "a bank", (INDEX, "v*.parquet"))
    with bank_lock(out):
        versions = read_index(out) if (out / INDEX).exists() else []
        current = Bank.load(out) if versions else None
        prompt = _same_prompt(current, asked, out)
        keep = _same_several(current, several, out) == "keep"
        _check_names(current, rows)
        own = {recipe.name for recipe in datasets if is_own(recipe, descriptions)}
        labels = {key: (name, prompt.text(name, description)) for key, (name, description) in rows.items()}
        if current is not None and not only:
            named = {recipe.name for recipe in datasets}
            for key, name, text in zip(current.keys, current.names, current.texts, strict=True):
                if key[0] not in named:
                    labels[key] = (name, text)
        before = dict(zip(current.keys, current.texts, strict=True)) if current is not None else {}
        owned = set(versions[-1].get("own", current.datasets())) if current is not None else set()
        if not shipped:
            keep_own_texts(({recipe.name for recipe in datasets} - own) & owned, before, labels, out)
        own |= owned - {recipe.name for recipe in datasets}
        keys = sorted(labels)
        texts = [labels[key][1] for key in keys]
        distinct = list(dict.fromkeys(texts))
        spec = encoder if encoder is not None else current.encoder if current is not None else encoders.CLIP
        identity = _recorded_identity(versions, spec)
        stored, probe = _stored(out, versions, identity, distinct, keep)
        missing = [text for text in distinct if text not in stored]
        if missing:
            live = once(lambda: encoders.load_encoder(spec, device), "loading the encoder", track)
            if identity is None or identity_key(identity) != identity_key(live.identity):
                if current is not None and spec == current.encoder:
                    current.check_encoder(live)  # raises: this spec has come to mean something else
                identity = live.identity
                stored, probe = _stored(out, versions, identity, distinct, keep)
                missing = [text for text in distinct if text not in stored]
            if probe is None:
                probe = live.encode([PROBE])[0]
            else:
                _maker(out, versions, identity).check_encoder(live)
            stored |= _encode(live, missing, keep, track)
        assert identity is not None and probe is not None  # every version and live encoder has them
        found = [stored[text] for text in texts]
        bank = Bank(
            encoder=spec,
            identity={**identity, "spec": spec},
            prompt=str(prompt),
            keys=keys,
            names=[labels[key][0] for key in keys],
            texts=texts,
            vectors=np.stack([text.vector for text in found]),
            tokens=[text.tokens for text in found],
            truncated=[text.truncated for text in found],
            probe=probe,
            parts=[text.parts for text in found if text.parts is not None] if keep else None,
            kept=kept_of(datasets, current, keys),
        )
        version = bank.save_locked(out, own)
    known = [entry["version"] for entry in versions]
    return EmbedReport(
        version=version,
        new=version not in known,
        back=version in known[:-1],
        encoder=spec,
        datasets=bank.count_by_dataset(),
        labels=len(bank),
        texts=len(distinct),
        encoded=len(missing),
        reused=len(distinct) - len(missing),
        missing_descriptions=0 if bank.prompt == WORD_TEMPLATE else bank.described.count(False),
        truncated=sum(bank.truncated),
        truncated_labels=bank.truncated_labels,
        prompt=prompt.templates,
        several="keep" if keep else "average",
        sentences=sum(text.count("\n") + 1 for text in distinct),
        changed=changed_texts(before, labels),
    )


def encode_texts(encoder: TextEncoder, texts: Sequence[str], track: Track = no_track) -> tuple[list[Vectors], Vectors]:
    """The vectors of texts of one or several sentences.

    Args:
        texts: each its sentences, one a line (`labelmerge.bank.prompt.Prompt.text`).

    Returns:
        For each text those of its sentences, float32 [sentences, D]; and their normalised means, float32 [n, D].
    """
    lines = list(dict.fromkeys(line for text in texts for line in text.split("\n")))
    row = {line: number for number, line in enumerate(lines)}
    vectors = encoder.encode(lines, track=track)
    parts = [vectors[[row[line] for line in text.split("\n")]] for text in texts]
    means = np.zeros((len(texts), encoder.dim), dtype=np.float32)
    for number, part in enumerate(parts):
        mean = part.mean(axis=0, dtype=np.float64)
        # One vector is its own mean, to the last bit.
        means[number] = part[0] if len(part) == 1 else mean / max(float(np.linalg.norm(mean)), 1e-12)
    return parts, means


def count_tokens(encoder: TextEncoder, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
    """How many tokens the longest sentence of each text has, and whether the encoder sees only its beginning."""
    counts = [encoder.count_tokens(text.split("\n")) for text in texts]
    return [max(tokens) for tokens, _ in counts], [any(truncated) for _, truncated in counts]


def _encode(encoder: TextEncoder, texts: Sequence[str], keep: bool, track: Track) -> dict[str, _Encoded]:
    parts, vectors = encode_texts(encoder, texts, track)
    tokens, truncated = count_tokens(encoder, texts)
    return {
        text: _Encoded(vectors[row], tokens[row], truncated[row], parts[row] if keep else None)
        for row, text in enumerate(texts)
    }


def _rows(datasets: Sequence[Recipe], descriptions: Path | None) -> dict[LabelKey, tuple[str, str]]:
    """Name and description of every label."""
    names = [recipe.name for recipe in datasets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        files = [recipe.argument for recipe in datasets if recipe.name in twice]
        raise UsageError(f"{' and '.join(files)} are all called {' and '.join(twice)}", fix="Give one another name")
    if descriptions is not None and not any((descriptions / f"{name}.csv").is_file() for name in names):
        expected = some((f"{name}.csv" for name in names), 3)
        raise UsageError(f"has no descriptions of these datasets (expected {expected})", where=descriptions)
    return {
        (recipe.name, row.index): (row.name, row.description)
        for recipe in datasets
        for row in load_descriptions(recipe, descriptions)
    }


def _same_prompt(current: Bank | None, asked: Prompt | None, out: Path) -> Prompt:
    """The prompt to use: the bank's own, which `asked` must not differ from; the paper's for a new bank."""
    if current is None:
        return asked or Prompt()
    if not current.probe.size:
        raise BankError(
            f"its vectors come from no encoder ({current.encoder}), so none can be added", where=out, fix=_ELSEWHERE
        )
    if asked is not None and str(asked) != current.prompt:
        kinds = [
            "words" if str(prompt) == WORD_TEMPLATE else " and ".join(map(repr, prompt.templates))
            for prompt in (Prompt.stored(current.prompt), asked)
        ]
        raise BankError(f"is a bank of {kinds[0]}, not of {kinds[1]}", where=out, fix=_ELSEWHERE)
    return Prompt.stored(current.prompt)


def _same_several(current: Bank | None, asked: str | None, out: Path) -> str:
    if current is None:
        return asked or SEVERAL[0]
    own = SEVERAL[0] if current.parts is None else SEVERAL[1]
    if asked not in (None, own):
        raise BankError(f"is a bank of labels' several sentences by {own!r}, not {asked!r}", where=out, fix=_ELSEWHERE)
    return own


def _check_names(current: Bank | None, rows: Mapping[LabelKey, tuple[str, str]]) -> None:
    """A label's key means one class for ever: shards and checkpoints count on it. Raises BankError."""
    if current is None:
        return
    changed = [
        f"{key[0]} {key[1]} is {name!r} in the bank and {rows[key][0]!r} now"
        for key, name in zip(current.keys, current.names, strict=True)
        if key in rows and prompt_name(rows[key][0]) != prompt_name(name)
    ]
    if changed:
        raise BankError(
            f"labels have come to mean something else: {some(changed, separator='; ')}",
            where=current.folder,
            fix="Give new classes new indices, at the end of the list. What is only called otherwise keeps its name "
            "here and gets another description; or choose another --out, and make its shards again",
        )


def _recorded_identity(versions: Sequence[Mapping[str, Any]], spec: str) -> Mapping[str, Any] | None:
    """The identity that some version has from this very encoder, newest first."""
    if not versions:
        return None
    print_ = encoders.fingerprint(spec)
    for entry in reversed(versions):
        identity: Mapping[str, Any] = entry["identity"]
        same_weights = identity.get("weights_sha256") == print_.weights_sha256
        if print_.activation not in (None, identity.get("activation")):
            continue
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
    out: Path,
    versions: Sequence[Mapping[str, Any]],
    identity: Mapping[str, Any] | None,
    texts: Sequence[str],
    keep: bool,
) -> tuple[dict[str, _Encoded], Vectors | None]:
    """What the bank's versions hold of `texts` from this encoder, and its vector of `PROBE`."""
    stored: dict[str, _Encoded] = {}
    probe: Vectors | None = None
    wanted = set(texts)
    for version in _made_by(versions, identity):
        bank = Bank.load(out, version)
        probe = bank.probe if probe is None else probe
        for row, text in enumerate(bank.texts):
            if text in wanted and text not in stored:
                parts = None
                if keep and bank.parts is not None:
                    parts = bank.parts[row]
                elif keep and "\n" not in text:
                    parts = bank.vectors[[row]]
                if parts is not None or not keep:
                    stored[text] = _Encoded(bank.vectors[row], bank.tokens[row], bank.truncated[row], parts)
        if len(stored) == len(wanted):
            break
    return stored, probe
