"""What a user can choose, in one light module: the command line imports nothing else for its help."""

from __future__ import annotations

from typing import Literal, get_args

MERGES = ("concepts", "text", "similar", "name", "naive", "table")
"""The ways to merge, by name (`labelmerge.merge.merges.taxonomy_of`)."""

Negatives = Literal["all", "own", "unrelated", "graded"]
NEGATIVES: tuple[str, ...] = get_args(Negatives)
"""What competes with a label (`labelmerge.merge.negatives.negatives`)."""
