"""The settings of SSIW."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.merge.choices import NEGATIVES
from labelmerge.settings import problems, refuse, setting


@dataclass(frozen=True)
class SsiwSettings:
    """The settings of SSIW's losses and of its temperature.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    losses: tuple[str, ...] = setting(
        ("hd", "ld", "wd"),
        "The losses that count: `hd` for masks, `ld` for noisy masks, `wd` for boxes. Datasets without a listed loss "
        "are left out.",
        choices=("hd", "ld", "wd"),
        metavar="hd,ld,wd",
        flag=True,
    )
    hd_weight: float = setting(1.0, "Factor of L_HD in the sum.")
    ld_weight: float = setting(1.0, "Factor of L_LD in the sum.")
    # L_WD begins at about 20: a sum over hundreds of dimensions.
    wd_weight: float = setting(
        0.1, "Factor of L_WD in the sum; L_WD is a sum over the dimensions, and at 1 it drowns the others."
    )
    drop: float = setting(0.3, "Share of each image's pixel losses, the largest, that L_LD drops.", minimum=0, below=1)
    negatives: str = setting(
        "graded",
        "Which columns compete with a label: `all` in full (the paper); its `own` dataset's only; all but those "
        "`unrelated` to it; or `graded`: its own dataset's in full, others by how far their meaning is.",
        choices=NEGATIVES,
        flag=True,
    )
    foreign_weight: float = setting(
        0.1,
        "The most that a column of other datasets alone counts among the competitors, where they are `unrelated` or "
        "`graded`.",
        minimum=0,
        maximum=1,
        flag=True,
    )
    temperature: float = setting(0.07, "τ at the start; it is learned.", minimum=0.01, maximum=1)
    temperature_lr: float = setting(1e-3, "Learning rate of log τ; it follows the schedule of `lr`.")

    unlabelled: str = setting(
        "none",
        "What unlabelled images teach (reader `images`, or those that `labelled` hides the masks of): nothing, to look "
        "like some label (`entropy`, after USSS), or the same however they look (`consistency` with a teacher that is "
        "an average of the weights).",
        choices=("none", "entropy", "consistency"),
        flag=True,
    )
    unlabelled_weight: float = setting(1.0, "Factor of that loss in the sum.")
    unlabelled_warmup: int = setting(0, "Steps in which that factor rises linearly from 0.")
    confidence: float = setting(
        0.95, "The probability from which on the teacher's label of a pixel counts.", minimum=0, maximum=1
    )
    teacher_decay: float = setting(0.99, "Decay of the average of weights that teaches.", minimum=0, below=1)

    def __post_init__(self) -> None:
        refuse(problems(self))
