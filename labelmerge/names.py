"""From a label to the text that the encoder reads.

The sentence is the one of Yin et al., "Scaling Up Multi-domain Semantic Segmentation with Sentence Embeddings"
(IJCV 2024): the name, a caption of it, and what it means.
"""

from __future__ import annotations

import re
import unicodedata

PROMPT_TEMPLATE = "{name}: An image of {name}. {description}"
"""How a sentence is made; banks store it, because it is part of what a vector means."""

# COCO's own words for "and what else belongs here"; the description says what that is.
_COCO_SUFFIX = re.compile(r"(?<=.)-(?:stuff|merged|other-merged|other)$")
_SYNONYMS = re.compile(r"[,;/]")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORDS = re.compile(r"[\s_.()-]+")


def prompt_name(name: str) -> str:
    """A dataset's official name as it reads in a sentence.

    Of a path (Mapillary's ``construction--flat--road``) the last step; of synonyms (ADE20K's ``building, edifice``,
    Objects365's ``Cabinet/shelf``) the first; without COCO's ``-stuff``, ``-merged``, ``-other``; CamVid's
    ``SignSymbol`` as two words; hyphens, underscores, dots and brackets as blanks; in lower case. A name of which
    nothing would be left is only stripped and put in lower case.

    >>> prompt_name("wall-other-merged"), prompt_name("floor_mat"), prompt_name("sofa, couch, lounge")
    ('wall', 'floor mat', 'sofa')
    """
    name = composed(name).strip()
    text = name.rpartition("--")[2]
    text = next((part for part in _SYNONYMS.split(text) if part.strip()), text).strip()
    text = _CAMEL_CASE.sub(" ", _COCO_SUFFIX.sub("", text))
    return _NOT_WORDS.sub(" ", text).strip().lower() or name.lower()


def composed(text: str) -> str:
    """A text whose accents are parts of their letters (Unicode's NFC), as they are not in names of files on a Mac.

    Otherwise labels that look the same would be two.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def sentence(name: str, description: str) -> str:
    """The text to encode for a label: `PROMPT_TEMPLATE`, which ends after the caption where there is no description."""
    return PROMPT_TEMPLATE.format(name=prompt_name(name), description=" ".join(composed(description).split())).strip()


def word(name: str) -> str:
    """The text to encode for a label's bare word, the baseline that sentences are compared with."""
    return prompt_name(name)


MAX_TOKENS = 60
"""How long a sentence may be, so that there is room for longer names and other templates before CLIP's limit."""
