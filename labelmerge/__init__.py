"""labelmerge: merge segmentation datasets by what their labels mean.

For notebooks and scripts, these functions do what the commands of the same name do (docs/python.md):

    >>> import labelmerge as lm
    >>> bank = lm.embed_labels(["cityscapes", "camvid"], "bank", encoder="offline")
    >>> taxonomy = lm.merge_labels(bank=bank)           # which labels mean the same: lm.relations(taxonomy)
    >>> shards = lm.open_shards("shards-out/cityscapes/train")
    >>> lm.train_run("shards-out", "bank", "run", preset="tiny", steps=300)
    >>> results = lm.evaluate_run("run", "shards-out/camvid", "run/results.json")
    >>> run = lm.open_run("run")
    >>> run.segment("photo.jpg", "road; car; deer = A deer is a hoofed animal")

All faults that a user can mend are a `labelmerge.LabelmergeError`. The steps are logged with the standard library's
`logging`, under the name ``labelmerge``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelmerge.api.api import (
        embed_labels,
        evaluate_run,
        merge_labels,
        open_bank,
        open_run,
        open_shards,
        train_run,
    )
    from labelmerge.errors import LabelmergeError
    from labelmerge.merge.relations import relations

__version__ = "0.1.0"

__all__ = [
    "LabelmergeError",
    "__version__",
    "embed_labels",
    "evaluate_run",
    "merge_labels",
    "open_bank",
    "open_run",
    "open_shards",
    "relations",
    "train_run",
]

_ELSEWHERE = {"LabelmergeError": "labelmerge.errors", "relations": "labelmerge.merge.relations"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'labelmerge' has no attribute {name!r}")
    from importlib import import_module  # what needs no torch must not wait for it

    return getattr(import_module(_ELSEWHERE.get(name, "labelmerge.api.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
