"""The graph of concepts: what is a kind of what, and what is a part of what.

``label_descriptions/concepts.csv`` is the graph that ships. Kinds and parts both count as *within*: a pixel of a rider
is a pixel of a person, and a pixel of a windshield is a pixel of a car.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from labelmerge.catalog import Kept
from labelmerge.errors import TaxonomyError, did_you_mean
from labelmerge.files import read_text
from labelmerge.text import csv_value, some

WHOLE = "anything"
"""The concept of all there is."""
NEARLY_ALL = frozenset({WHOLE, "thing"})
"""Concepts that say next to nothing of what lies within them."""

HEADER = ("concept", "kind_of", "part_of", "description", "exhausted_by")
_MAX_PROBLEMS = 8

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Concept:
    """One meaning.

    Attributes:
        name: in lower case and singular; a sense in brackets tells homonyms apart: ``mouse (animal)``.
        kind_of, part_of: the concepts that it lies within.
        description: what it means, in one sentence.
        exhausted_by: concepts within it that leave nothing of it but rarities: whoever rides is a bicyclist or a
            motorcyclist. None where nobody can list them all.
    """

    name: str
    kind_of: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    description: str = ""
    exhausted_by: tuple[str, ...] = ()

    @property
    def wholes(self) -> tuple[str, ...]:
        """The concepts that it lies directly within."""
        return self.kind_of + self.part_of


class ConceptGraph:
    """Concepts and what lies within what: a directed graph without circles.

    Args:
        concepts: in the order in which they are to be named.

    Raises:
        TaxonomyError: an empty or repeated name, a parent that is not a concept, a circle, or a concept that is
            exhausted by what does not lie within it; all in one message.
    """

    def __init__(self, concepts: Iterable[Concept]) -> None:
        every = list(concepts)
        self._concepts = {concept.name: concept for concept in every}
        problems = [f"{name!r} is given twice" for name in _repeated([concept.name for concept in every])]
        for concept in every:
            if not concept.name or concept.name != " ".join(concept.name.split()) or ";" in concept.name:
                problems.append(f"{concept.name!r} can't name a concept")
            problems += [
                f"{concept.name!r} lies within {whole!r}, which is not a concept "
                f"({did_you_mean(whole, self._concepts).rstrip('.')})"
                for whole in concept.wholes
                if whole not in self._concepts
            ]
        if not problems:
            try:
                self._order = list(TopologicalSorter({c.name: c.wholes for c in every}).static_order())
            except CycleError as error:
                problems.append(f"a circle: {' within '.join(map(repr, reversed(error.args[1])))}")
        self._number = {name: number for number, name in enumerate(self._concepts)}
        if not problems:
            problems = [
                f"{concept.name!r} can't be exhausted by {inner!r}, which does not lie within it"
                for concept in every
                for inner in concept.exhausted_by
                if inner not in self.below(concept.name) - {concept.name}
            ]
        if problems:
            raise TaxonomyError(some(problems, _MAX_PROBLEMS, "; "))

    def __len__(self) -> int:
        return len(self._concepts)

    def __contains__(self, name: object) -> bool:
        return name in self._concepts

    def __getitem__(self, name: str) -> Concept:
        return self._concepts[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the K concepts, in their order."""
        return tuple(self._concepts)

    @cached_property
    def within(self) -> Booleans:
        """bool ``[K, K]``: whether the second concept lies within the first, or is it."""
        return self._closed({name: concept.wholes for name, concept in self._concepts.items()})

    @cached_property
    def kinds(self) -> Booleans:
        """bool ``[K, K]``: whether the second concept is a kind of the first, or is it."""
        return self._closed({name: concept.kind_of for name, concept in self._concepts.items()})

    @cached_property
    def parts(self) -> Booleans:
        """bool ``[K, K]``: whether the second concept is a part of the first, or of a part of it, or is it."""
        return self._closed({name: concept.part_of for name, concept in self._concepts.items()})

    def _closed(self, above: Mapping[str, Sequence[str]]) -> Booleans:
        found = np.eye(len(self), dtype=np.bool_)
        for name in self._order:  # wholes come before what lies within them
            inner = self._number[name]
            for whole in above[name]:
                found[:, inner] |= found[:, self._number[whole]]
        return found

    def rows(self, names: Iterable[str]) -> list[int]:
        """The places of these concepts in `names`; KeyError for one that is not here."""
        return [self._number[name] for name in names]

    @cached_property
    def exhausted(self) -> list[tuple[int, list[int]]]:
        """The concepts of which nothing is left without some others, and these; what lies within others comes first."""
        own = ((self._number[name], self.rows(self[name].exhausted_by)) for name in reversed(self._order))
        return [(concept, inner) for concept, inner in own if inner]

    def below(self, *names: str) -> frozenset[str]:
        """What lies within any of these concepts, themselves included; KeyError for one that is not here."""
        inside = self.within[self.rows(names)].any(axis=0)
        every = self.names
        return frozenset(every[place] for place in np.flatnonzero(inside))

    def extended(self, concepts: Iterable[Concept]) -> ConceptGraph:
        """This graph and more concepts, whose parents may be of either. Raises TaxonomyError."""
        return ConceptGraph([*self._concepts.values(), *concepts])


def read_concepts(path: Path) -> ConceptGraph:
    """Read a graph: UTF-8 CSV with the columns `HEADER`; several parents are separated by ``;``.

    Raises:
        TaxonomyError: it can't be read, or is not a graph without circles; all problems in one message.
    """
    text = read_text(path, TaxonomyError)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if missing := [column for column in HEADER if column not in (reader.fieldnames or ())]:
            raise TaxonomyError(f"has no column {' or '.join(map(repr, missing))}", where=path)
        concepts = []
        for row in reader:
            if None in row or None in row.values():
                raise TaxonomyError("not as many fields as the header has", where=f"{path}:{reader.line_num}")
            row = {column: csv_value(cell) for column, cell in row.items()}
            others = {column: split_concepts(row[column]) for column in ("kind_of", "part_of", "exhausted_by")}
            concepts.append(Concept(row["concept"].strip(), **others, description=row["description"].strip()))
    except csv.Error as error:
        raise TaxonomyError(f"can't be read as CSV ({error})", where=f"{path}:{reader.line_num}") from error
    try:
        return ConceptGraph(concepts)
    except TaxonomyError as error:
        raise TaxonomyError(error.what, where=path) from None


def shipped_rows(path: Path, header: Sequence[str]) -> list[list[str]]:
    """The rows of a table that ships beside the graph, without its header.

    Raises:
        TaxonomyError: the installation is damaged.
    """
    rows = list(csv.reader(io.StringIO(read_text(path, TaxonomyError))))
    if not rows or rows[0] != header or any(len(row) != len(header) for row in rows):
        raise TaxonomyError(f"has not the columns {', '.join(header)}", where=path)
    return rows[1:]


def split_concepts(cell: str) -> tuple[str, ...]:
    """The concepts of a table's cell, which are separated by ``;``, each once."""
    return tuple(dict.fromkeys(name for part in cell.split(";") if (name := " ".join(part.split()))))


def sets_of(
    attached: Sequence[Sequence[str]],
    datasets: Sequence[str],
    graph: ConceptGraph,
    kept: Mapping[str, Kept] = MappingProxyType({}),
    but: Sequence[Sequence[str]] | None = None,
) -> Booleans:
    """For each label the concepts that it may stand for: what lies below those it is attached to, less what its own
    dataset names more closely.

    Where a dataset tells *rider* from *person*, *person* means the others; elsewhere it may include riders.
    A concept that two labels of a dataset reach belongs to the one that is attached nearer to it, or to both if neither
    is nearer.

    Where a mask gives each pixel to one label, the *face* is taken off the *person*. Where things are outlined one by
    one, the box of the *person* goes around the *face*, which has its own box: kinds are taken off (a thing has one
    label), parts are kept. Where labels overlap, a rider may also be called a *person*: everything is kept.

    Where a dataset has *bicyclist* and *motorcyclist*, and nobody else rides, its *person* rides nothing; and a label
    that means both may be any *rider* (`Concept.exhausted_by`). Where a label is attached to *rider* itself, what is
    left of it is that label's.

    Args:
        attached: the concepts of each of the N labels.
        datasets: each label's dataset.
        graph: K concepts.
        kept: what wider labels keep of narrower ones, by dataset; nothing where it isn't said.
        but: concepts that each label does not stand for, whether its dataset names them or not; nothing below them.

    Returns:
        bool ``[N, K]``.
    """
    found = np.zeros((len(attached), len(graph)), dtype=np.bool_)
    for dataset in dict.fromkeys(datasets):
        own = [label for label, whose in enumerate(datasets) if whose == dataset]
        nodes = sorted({node for label in own for node in graph.rows(attached[label])})
        reached = graph.within[nodes]  # [k, K]
        how = kept.get(dataset)
        inner = reached if how is None else graph.kinds[nodes] & (how == "parts")
        nearer = inner[:, nodes] & ~np.eye(len(nodes), dtype=np.bool_)  # [k, k]: the second is taken off the first
        # float32: counts are small, and numpy multiplies only floats fast
        taken = nearer.astype(np.float32) @ reached.astype(np.float32) > 0
        mine = reached & ~taken
        place = {node: number for number, node in enumerate(nodes)}
        for label in own:
            found[label] = mine[[place[node] for node in graph.rows(attached[label])]].any(axis=0)
            if but is not None and but[label]:
                found[label] &= ~graph.within[graph.rows(but[label])].any(axis=0)
        for concept, others in graph.exhausted:
            if concept not in place:
                sets = found[own]
                some, every = sets[:, others].any(axis=1), sets[:, others].all(axis=1)
                only = sets.sum(axis=1) == 1  # a label always keeps something
                found[own, concept] = sets[:, concept] & (some | only) | every
    return found


def distinct_concepts(sets: Booleans, graph: ConceptGraph) -> tuple[list[str], Booleans]:
    """The concepts that some labels tell apart: those that occur in the same labels are one.

    Args:
        sets: bool ``[N, K]``, from `sets_of`.

    Returns:
        The C names, each that of the concept with most below it among those that are one; bool ``[N, C]``.
    """
    used = np.flatnonzero(sets.any(axis=0))
    # Hashing the packed columns groups thousands of concepts at once.
    packed = np.ascontiguousarray(np.packbits(sets[:, used], axis=0).T)
    groups: dict[bytes, list[int]] = {}
    for node, signature in zip(used.tolist(), packed, strict=True):
        groups.setdefault(signature.tobytes(), []).append(node)
    within, names = graph.within, graph.names
    chosen = []
    for nodes in groups.values():
        inside = within[np.ix_(nodes, nodes)].sum(axis=1)
        chosen.append(nodes[int(np.argmax(inside))])  # the first among equals
    order = np.argsort(chosen)
    firsts = np.array(chosen, dtype=np.int64)[order]
    return [names[node] for node in firsts], sets[:, firsts]


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
