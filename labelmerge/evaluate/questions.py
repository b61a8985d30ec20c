"""What is asked of a run on each set: by which vectors, and how the answers are judged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.errors import UsageError
from labelmerge.evaluate.mixed import MixedList, meanings, own_verdicts
from labelmerge.evaluate.sets import EvalSet
from labelmerge.methods.meaning import By, labels_of, run_columns
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.methods.restore import Trained
from labelmerge.model.views import Views
from labelmerge.tasks.ambiguity import AmbiguityAware, Verdicts
from labelmerge.tasks.semantic import SemanticCounts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked on one set.

    Attributes:
        data: the set.
        labels: its own labels.
        predictor: segments with them; None where no label has a vector.
        own: what they are to each other; None where they are not related.
        mixed: what each label of the common list is worth here; None where there is no such list.
        mixed_predictor: segments with the common list; None where there is none, or none of its labels has a vector.
    """

    data: EvalSet
    labels: LabelList
    predictor: Predictor | None
    own: Verdicts | None
    mixed: Verdicts | None
    mixed_predictor: Predictor | None

    def aware(self, counts: SemanticCounts) -> AmbiguityAware | None:
        """What counts of the set's own labels say where these are related, or where not all were annotated; or None."""
        if self.own is None and not self.data.partly_annotated:
            return None
        verdicts = self.own or Verdicts.unrelated(len(self.data.space))
        return AmbiguityAware.of(counts.confusion, verdicts, counts.undecided)


@dataclass(frozen=True, eq=False)
class Questions:
    """All that is asked.

    Attributes:
        sets: one question for each set.
        by: what labels are asked for by.
        mixed: the common list and how it is asked for, where there is one.
        taxonomy: how the figures that know relations judge, for the protocol.
    """

    sets: tuple[Question, ...]
    by: By
    mixed: tuple[MixedList, LabelList] | None
    taxonomy: str

    @property
    def predictor(self) -> Predictor | None:
        """One of the predictors; they differ in their labels alone."""
        every = [each for question in self.sets for each in (question.predictor, question.mixed_predictor)]
        return next((each for each in every if each is not None), None)

    def mixed_json(self) -> dict[str, Any] | None:
        """The common list as results.json has it."""
        if self.mixed is None:
            return None
        listed, labels = self.mixed
        rows = []
        for place, (name, members) in enumerate(zip(listed.names, listed.members, strict=True)):
            row: dict[str, Any] = {"name": name, "labels": [f"{dataset}:{index}" for dataset, index in members]}
            row["vectors"] = labels.counts[place]
            if labels.columns:
                row["columns"] = list(labels.columns[place])
            rows.append(row)
        return {"labels": rows}


def ask(
    sets: Sequence[EvalSet],
    trained: Trained,
    bank: Bank,
    views: Views,
    *,
    by: By | None,
    mixed: bool,
    taxonomy: Path | None,
) -> Questions:
    """What to ask on each set; the arguments are those of `labelmerge.evaluate.evaluate.evaluate`.

    Raises:
        UsageError, BankError, TaxonomyError, CheckpointError: as there.
    """
    columns = run_columns(trained.checkpoint, trained.learner, by)
    spaces = list({data.space.name: data.space for data in sets}.values())
    things = {data.space.name: data.things for data in sets if data.things is not None}
    own = {
        space.name: replace(
            labels_of(space, bank, columns),
            things=tuple(k in things[space.name] for k in space.indices) if space.name in things else None,
        )
        for space in spaces
    }
    told = meanings(spaces, bank, taxonomy)
    listed = asked = None
    if mixed:
        listed = MixedList.of(spaces, told)
        asked = listed.labels(bank)
        if columns is not None:
            asked = columns.ask(asked, listed.members, bank)

    def predictor(labels: LabelList | None, dataset: str) -> Predictor | None:
        known = labels is not None and any(labels.counts)
        return trained.predictor(labels, views, bank, dataset=dataset) if labels is not None and known else None

    fixed = views.short_edge
    edge = {data.dataset: trained.checkpoint.short_edge_of(data.dataset) if fixed is None else fixed for data in sets}
    alike = {edge[data.dataset]: data.dataset for data in sets}
    everywhere: dict[int, Predictor | None] = {}
    try:
        everywhere = {pixels: predictor(asked, dataset) for pixels, dataset in alike.items()}
    except UsageError as error:  # such as a head for each dataset
        if trained.learner.can_name == "anything":
            raise
        _log.warning("nothing is measured with one list of all sets' labels: %s", error.what)
        listed = asked = None
    places = {(data.space.name, edge[data.dataset]): data.dataset for data in sets}
    of_space = {place: predictor(own[place[0]], dataset) for place, dataset in places.items()}
    verdicts = {space.name: own_verdicts(space, told) for space in spaces}
    return Questions(
        sets=tuple(
            Question(
                data=data,
                labels=own[data.space.name],
                predictor=of_space[data.space.name, edge[data.dataset]],
                own=verdicts[data.space.name],
                mixed=listed.verdicts(data.space, told) if listed is not None else None,
                mixed_predictor=everywhere.get(edge[data.dataset]),
            )
            for data in sets
        ),
        by="text" if columns is None else "concepts",
        mixed=(listed, asked) if listed is not None and asked is not None else None,
        taxonomy=str(taxonomy) if taxonomy is not None else "concepts of label_descriptions",
    )
