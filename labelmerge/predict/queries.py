"""What a user asks for by words → label vectors: labels that a bank knows by name, new ones by what they mean."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.bank.prompt import Prompt
from labelmerge.class_lists import read_class_list
from labelmerge.errors import BankError, DescriptionsError, UsageError, did_you_mean
from labelmerge.files import read_text
from labelmerge.labels import LabelKey
from labelmerge.names import prompt_name
from labelmerge.text import csv_value, delimiter_of

_ALL = "*"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelQuery:
    """A label as the user wrote it.

    Attributes:
        name: ``deer``; ``coco_panoptic:mouse`` for one dataset's meaning; ``cityscapes:*`` for all labels of a dataset.
        description: what it means; "" looks the name up in the bank.
    """

    name: str
    description: str = ""


@dataclass(frozen=True)
class ResolvedLabel:
    """A label with its vector.

    Attributes:
        name: what to call it in the output.
        text: what its vector was made from.
        source: ``<dataset>:<index>`` of the row of the bank, or ``new``.
        vector: float32 ``[D]``.
    """

    name: str
    text: str
    source: str
    vector: npt.NDArray[np.float32]

    @property
    def key(self) -> LabelKey | None:
        """The dataset's label that it is; None where it is new."""
        dataset, _, index = self.source.rpartition(":")
        return (dataset, int(index)) if dataset else None


def parse_labels(text: str) -> list[LabelQuery]:
    """Read ``"road, sky; deer = A hoofed animal; males carry antlers"``.

    Labels are separated by commas or semicolons. What follows ``=`` is the label's description and goes on to the next
    semicolon, so it may contain commas. A name in double quotes may contain all of them: ``"sofa, couch"``.

    Raises:
        UsageError: a description without a name, or no labels at all.
    """
    quoted: list[str] = []

    def kept(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"\0{len(quoted) - 1}\0"

    def named(words: str) -> str:
        return " ".join(re.sub("\0(\\d+)\0", lambda match: quoted[int(match[1])], words).split())

    queries = []
    # Quotes are of names only where they begin one; elsewhere, as in a description, they are what they are.
    for chunk in re.sub(r'(?<![^,;])\s*"([^"]+)"(?=\s*(?:[,;=]|$))', kept, text.replace("\0", " ")).split(";"):
        head, equals, description = chunk.partition("=")
        description = re.sub("\0(\\d+)\0", lambda match: f'"{quoted[int(match[1])]}"', description)
        *plain, last = (named(name) for name in head.split(","))
        queries += [LabelQuery(name) for name in plain if name]
        if equals and not last:
            raise UsageError(f"a description without a name: {chunk.strip()!r}", fix="Write NAME = DESCRIPTION")
        if last:
            queries.append(LabelQuery(last, " ".join(description.split())))
    if not queries:
        raise UsageError("no labels", fix='Write them as in --labels "deer, grass, sky"')
    return queries


def read_labels(path: Path) -> list[LabelQuery]:
    """Read a CSV with the columns `name` and, if there are any, `description` (UTF-8); other columns don't matter.

    Separated by commas or, as some spreadsheets save it, semicolons or tabs. Or a ``.txt`` file of one name a line.

    Raises:
        DescriptionsError: it can't be read, has no column `name`, or holds no labels.
    """
    if path.suffix.lower() == ".txt":
        return [LabelQuery(row.name, row.description) for row in read_class_list(path)]
    text = read_text(path, DescriptionsError)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True))
    except csv.Error as error:
        raise DescriptionsError(f"can't be read as CSV ({error})", where=path) from error
    if rows and "name" not in rows[0]:
        raise DescriptionsError("has no column 'name'", where=path, fix="The first line must be: name,description")
    queries = []
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise DescriptionsError(
                f"row {number} has more fields than the header",
                where=path,
                fix="Put quotes around texts that contain commas",
            )
        if not (name := csv_value(row["name"] or "").strip()):
            raise DescriptionsError(f"row {number} has no name", where=path)
        queries.append(LabelQuery(name, csv_value(row.get("description") or "").strip()))
    if not queries:
        raise DescriptionsError("no labels", where=path)
    return queries


def resolve(
    queries: Sequence[LabelQuery],
    bank: Bank,
    *,
    first: Collection[str] = (),
    trained: Collection[str] = (),
    encoder: str | None = None,
    device: str | None = None,
) -> list[ResolvedLabel]:
    """Find every label's vector. The text encoder is loaded only if some label is new.

    A name without a description is looked up among the bank's labels, as an official name or as it reads in a sentence
    (`prompt_name`). Where datasets mean different things by it, the meaning of most datasets is taken (among equals
    that of a `trained` one, then the first in the bank's order), and the log says so; of datasets in `first`,
    where these have the name. A name that the bank lacks is encoded as it stands.

    Args:
        first: datasets whose meaning of a name goes before that of others.
        trained: datasets whose meaning is taken where equally many mean another.
        encoder: spec of the text encoder, where the bank's own spec can't be used on this machine.

    Raises:
        UsageError: no such dataset in the bank, no such label in that dataset, or a label given twice.
        BankError: a new label, but the bank's vectors come from no encoder, or from another than this one.
        EncoderError: the encoder is not available.
    """
    found: list[ResolvedLabel | LabelQuery] = []
    for query in queries:
        found += _described(query, bank) if query.description else _known(query, bank, first, trained)
    names = Counter(label.name for label in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UsageError(
            f"labels given twice: {', '.join(map(repr, twice))}",
            fix="Where several datasets have a label, write DATASET:NAME",
        )
    new = [label for label in found if isinstance(label, LabelQuery)]
    vectors = _encode(new, bank, encoder, device) if new else []
    for query, label in zip(new, vectors, strict=True):
        if not query.description and (cosines := bank.vectors @ label.vector).size:
            row = int(cosines.argmax())
            _log.info(
                "%r is nearest in meaning to %s of %s, by its bare name (cosine %.2f)",
                query.name, bank.names[row], bank.keys[row][0], cosines[row],
            )  # fmt: skip
    encoded = iter(vectors)
    return [next(encoded) if isinstance(label, LabelQuery) else label for label in found]


def _described(query: LabelQuery, bank: Bank) -> Sequence[ResolvedLabel | LabelQuery]:
    if bank.probe.size and (text := _text(query, bank)) in bank.texts:
        return [_label(query.name, bank.texts.index(text), bank)]
    return [query]


def _known(
    query: LabelQuery, bank: Bank, first: Collection[str], trained: Collection[str]
) -> Sequence[ResolvedLabel | LabelQuery]:
    dataset, colon, name = (part.strip() for part in query.name.partition(":"))
    if not colon:
        rows = _rows(query.name, bank, range(len(bank)))
        if not rows:
            near = did_you_mean(query.name, {prompt_name(name) for name in bank.names})
            _log.warning(
                "%r is not a label that the checkpoint was trained with: taken as a new one, without a description%s",
                query.name,
                f" ({near})" if near.endswith("?") else "",
            )
            return [query]
        rows = [row for row in rows if bank.keys[row][0] in first] or rows
        return [_most_frequent(query.name, sorted(rows, key=lambda row: bank.keys[row][0] not in trained), bank)]
    if dataset not in bank.datasets():
        raise UsageError(
            f"{query.name!r}: the checkpoint's bank has no dataset {dataset!r}",
            fix=f"A new label needs a description, NAME = DESCRIPTION. {did_you_mean(dataset, bank.datasets())}",
        )
    own = [row for row, (whose, _) in enumerate(bank.keys) if whose == dataset]
    if name == _ALL:
        return [_label(bank.names[row], row, bank) for row in own]
    rows = _rows(name, bank, own)
    if not rows:
        raise UsageError(
            f"{dataset} has no label {name!r}",
            fix=did_you_mean(name, {prompt_name(bank.names[row]) for row in own}),
        )
    exact = [row for row in rows if bank.names[row].casefold() == name.casefold()]
    best, *others = exact or rows
    if others := [row for row in others if bank.texts[row] != bank.texts[best]]:
        _log.warning(
            "%r is taken for %s's %r, and may be %s: write the whole name",
            query.name, dataset, bank.names[best], " or ".join(repr(bank.names[row]) for row in others),
        )  # fmt: skip
    return [_label(query.name, best, bank)]


def _rows(name: str, bank: Bank, among: Sequence[int]) -> list[int]:
    """The rows that a name means: by official name where no sentence spells it so, else by how sentences spell it."""
    wanted = prompt_name(name)
    if name.casefold() != wanted:
        exact = [row for row in among if bank.names[row].casefold() == name.casefold()]
        if exact:
            return exact
    return [row for row in among if prompt_name(bank.names[row]) == wanted]


def _most_frequent(name: str, rows: Sequence[int], bank: Bank) -> ResolvedLabel:
    """The meaning that most of some rows have, the first of them among equals."""
    first = {bank.texts[row]: row for row in reversed(rows)}
    counts = Counter(bank.texts[row] for row in rows)
    best = min(first.values(), key=lambda row: (-counts[bank.texts[row]], rows.index(row)))
    if len(first) > 1:
        others = [f"{bank.keys[row][0]}:{name}" for row in sorted(first.values()) if row != best]
        _log.info(
            "%r means what it does in %s: %s (others: %s)",
            name, bank.keys[best][0], bank.texts[best], ", ".join(others),
        )  # fmt: skip
    return _label(name, best, bank)


def _label(name: str, row: int, bank: Bank) -> ResolvedLabel:
    dataset, index = bank.keys[row]
    return ResolvedLabel(name, bank.texts[row], f"{dataset}:{index}", bank.vectors[row])


def _text(query: LabelQuery, bank: Bank) -> str:
    """What to encode for a label, in the manner of the bank's own texts."""
    return Prompt.stored(bank.prompt).text(query.name, query.description)


def _encode(queries: Sequence[LabelQuery], bank: Bank, encoder: str | None, device: str | None) -> list[ResolvedLabel]:
    if not bank.probe.size:
        raise BankError(
            f"{queries[0].name!r} is new, but the checkpoint's vectors ({bank.encoder}) were not made from text",
            where=bank.folder,
            fix="Use labels that it was trained with",
        )
    from labelmerge.embed.embed import count_tokens, encode_texts
    from labelmerge.encoders.encoders import load_encoder

    live = load_encoder(encoder or bank.encoder, device)
    bank.check_encoder(live)
    if bank.prompt == WORD_TEMPLATE and any(query.description for query in queries):
        _log.warning("the checkpoint was trained with bare words: descriptions are not used")
    texts = [_text(query, bank) for query in queries]
    for query, tokens, cut in zip(queries, *count_tokens(live, texts), strict=True):
        if cut:
            _log.warning(
                "the description of %r has %d tokens, of which the encoder reads %d: its end doesn't count",
                query.name, tokens, live.max_tokens,
            )  # fmt: skip
    return [
        ResolvedLabel(query.name, text, "new", vector)
        for query, text, vector in zip(queries, texts, encode_texts(live, texts)[1], strict=True)
    ]
