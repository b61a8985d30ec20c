"""A dead loading process is said in one line, whatever torch's report of it interrupted."""

from __future__ import annotations

import pytest

from labelmerge.errors import LabelmergeError
from labelmerge.loading.workers import dead_workers

_DEATH = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_a_death_that_became_another_error_is_still_one() -> None:
    with (
        pytest.raises(LabelmergeError, match=r"a loading process died \(DataLoader worker \(pid 7\) is killed"),
        dead_workers(),
    ):
        try:
            raise _DEATH
        except RuntimeError as error:
            raise SystemError("interrupted") from error
    with pytest.raises(LabelmergeError, match="a loading process died"), dead_workers():
        try:
            raise _DEATH
        finally:
            raise KeyError("while tidying up")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), dead_workers():
        raise ValueError("mine")
