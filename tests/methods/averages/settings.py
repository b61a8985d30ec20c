"""What the test method may be told."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.settings import problems, refuse, setting


@dataclass(frozen=True)
class AveragesSettings:
    """Its own settings."""

    speed: float = setting(0.1, "How fast the mean follows.", maximum=1)

    def __post_init__(self) -> None:
        refuse(problems(self))
