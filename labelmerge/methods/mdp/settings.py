"""The settings of MDP."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.settings import problems, refuse, setting


@dataclass(frozen=True)
class MdpSettings:
    """The settings of MDP's prototypes and mixing. Where the paper's text lost a number, it says so.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    contrast: str = setting(
        "prototype",
        "What a pixel is compared with: the classes' `prototype`s (the method), or every `pixel` of its other view: "
        "the paper's baseline (eq. 2), without mixing and sparse coding (`mix = none`, `sparse_weight = 0`).",
        choices=("prototype", "pixel"),
    )
    prototypes: str = setting(
        "label",
        "What has a prototype: each `label` of each dataset (the paper), or each `concept`: labels of the same columns "
        "share one.",
        choices=("label", "concept"),
    )
    prototype_memory: int = setting(
        64, "Batches whose class means the prototypes are of; the paper's memory holds a whole epoch's.", minimum=1
    )
    prototype_temperature: float = setting(0.07, "τ of pixels' similarities to prototypes.", above=0)
    key_momentum: float = setting(0.999, "How slowly the key network follows the trained one.", minimum=0, maximum=1)
    mix: str = setting(
        "both",
        "How samples of different datasets are mixed: `region` (a rectangle of another), `pixel` (a weighted mean), "
        "`both` (one or the other, by chance), or `none`.",
        choices=("none", "region", "pixel", "both"),
    )
    mix_share: float = setting(0.5, "Share of views that are mixed.", maximum=1)
    mix_alpha: float = setting(1.0, "α of the Beta distribution of the mean's weight.", above=0)
    sparse_weight: float = setting(
        0.1, "w: how much the prototypes nearest to a label's own count as right, too (lost in the paper); 0: not."
    )
    sparse_neighbours: int = setting(3, "k: how many of them (lost in the paper).", minimum=1)
    projection_dim: int = setting(256, "Dimension of the space of prototypes.", minimum=1)
    projection_features: int = setting(256, "Channels of the network's output and within the projection.", minimum=1)

    def __post_init__(self) -> None:
        wrong = problems(self)
        if not wrong and self.contrast == "pixel" and (self.mix != "none" or self.sparse_weight):
            wrong.append("contrast = pixel knows no mixing and no sparse coding: set mix = none and sparse_weight = 0")
        refuse(wrong)
