"""How a label's text is made: by one template or several, and sentence by sentence where asked for."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from labelmerge.errors import UsageError
from labelmerge.names import PROMPT_TEMPLATE, composed, prompt_name

FIELDS = ("name", "description", "sentence")
"""What a template may name: `sentence` stands for every sentence of the description in turn."""

# A full stop that ends no sentence follows one of these.
_ABBREVIATION = re.compile(r"(?:^|[\s(\"“])(?:[A-Z]|e\.g|i\.e|etc|cf|ca?|approx|vs|No|St|Dr|Mrs?|Ms|Prof|Jr|Sr)\.$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”)]?\s+(?=[\"“(]?[A-Z0-9])")


@dataclass(frozen=True)
class Prompt:
    """The templates of a bank's texts, such as ``{name}: An image of {name}. {description}``.

    A label has a sentence for every template and, with ``{sentence}`` in it, for every sentence of the description;
    equal ones count once. Its text is those sentences, one a line.
    """

    templates: tuple[str, ...] = (PROMPT_TEMPLATE,)

    @classmethod
    def of(cls, templates: Sequence[str]) -> Prompt:
        """The prompt of these templates, in their order.

        Raises:
            UsageError: a template names something else than `FIELDS`, none of them, or is not well formed.
        """
        if not templates:
            raise UsageError("a prompt needs a template")
        for template in templates:
            if problem := _problem(template):
                raise UsageError(
                    f"the prompt {template!r} {problem}",
                    fix=f"Write it as in {PROMPT_TEMPLATE!r}; {{sentence}} is each sentence of the description",
                )
        return cls(tuple(dict.fromkeys(template.strip() for template in templates)))

    @classmethod
    def stored(cls, text: str) -> Prompt:
        """The prompt that `str` gave `text` for, as banks store it."""
        return cls(tuple(text.split("\n")))

    def __str__(self) -> str:
        return "\n".join(self.templates)

    def text(self, name: str, description: str) -> str:
        """A label's text: its sentences, one a line; the bare word where the templates would leave nothing."""
        fields = {"name": prompt_name(name), "description": " ".join(composed(description).split())}
        lines = [
            template.format(**fields, sentence=sentence).strip()
            for template in self.templates
            for sentence in (split_sentences(fields["description"]) if "{sentence}" in template else [""])
        ]
        return "\n".join(dict.fromkeys(line for line in lines if line)) or fields["name"]


def _problem(template: str) -> str | None:
    if "\n" in template:
        return "has more than one line"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"can't be read ({error})"
    named = [field for _, field, _, _ in parts if field is not None]
    if unknown := [field for field in named if field not in FIELDS]:
        return f"names {{{unknown[0]}}}, and a label has only {', '.join(map('{{{}}}'.format, FIELDS))}"
    if any(form or conversion for _, _, form, conversion in parts):
        return "has a format (after ':' or '!') within its braces"
    return None if named else "names nothing of the label: all labels would have one text"


def split_sentences(text: str) -> list[str]:
    """The sentences of an English text, never none: ``""`` has one, itself.

    >>> split_sentences("A bus, e.g. a coach. It has seats.")
    ['A bus, e.g. a coach.', 'It has seats.']
    """
    sentences, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    return [*sentences, text[start:].strip()]
