"""The settings of the method `depth`."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.settings import idle, problems, refuse, setting


@dataclass(frozen=True)
class DepthSettings:
    """The settings of the network's second input and of its losses.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    depth_labels: str = setting(
        "none",
        "The network's second input: none, or the vector of every pixel's label in the shards' `masks`, made by people "
        "or by a model (`labelmerge relabel`).",
        choices=("none", "masks"),
        flag=True,
    )
    depth_alignment: str = setting(
        "spread",
        "How a prediction is scaled and shifted before it is compared: so that median and mean deviation agree "
        "(`spread`), by `least_squares`, or not at all, as targets are `normalised` (LeReS). Least squares teach an "
        "untrained network almost nothing: the best scale of an uninformative prediction is 0.",
        choices=("normalised", "spread", "least_squares"),
    )
    depth_trim: float = setting(
        0.0, "Share of an image's pixels, the worst ones, that is left out; MiDaS has 0.2.", minimum=0.0
    )
    gradient_weight: float = setting(
        0.5, "Factor of the gradient matching term, which keeps edges sharp; 0 leaves it out.", minimum=0.0
    )
    gradient_scales: int = setting(
        4, "Number of scales at which gradients are compared, each half the one before.", minimum=1
    )
    ranking_weight: float = setting(
        0.0,
        "Factor of LeReS's ranking term: which of two pixels is farther, half of the pairs across edges of the image.",
        minimum=0.0,
    )
    normal_weight: float = setting(
        0.0,
        "Factor of LeReS's normal term: the angles between surfaces on both sides of bends, of edges, and anywhere.",
        minimum=0.0,
    )
    field_of_view: float = setting(
        60.0, "Angle of a view's longer side that the normal term assumes, in degrees.", minimum=1.0, below=179.0
    )
    depth_features: int = setting(64, "Channels of the network's output, of which depth is made.", minimum=1)

    def __post_init__(self) -> None:
        found = problems(self)
        if not found and self.depth_trim >= 1:
            found = ["depth_trim must be below 1"]
        refuse(found)

    def idle(self) -> list[str]:
        """Which settings were set without effect, a line each."""
        scales = [] if self.gradient_weight else idle(self, ["gradient_scales"], "gradient_weight is 0")
        view = [] if self.normal_weight else idle(self, ["field_of_view"], "normal_weight is 0")
        return [*scales, *view]

    @property
    def with_labels(self) -> bool:
        """Whether labels are a second input."""
        return self.depth_labels != "none"
