"""The settings of LMSeg."""

from __future__ import annotations

from dataclasses import dataclass

from labelmerge.settings import idle, problems, refuse, setting


@dataclass(frozen=True)
class LmsegSettings:
    """The settings of LMSeg's decoder, of its losses, and of what becomes a segment.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    targets: str = setting(
        "segments",
        "What queries learn: the things and stuff of sets with `segments`, where others give a region for each class; "
        "or a region for each class everywhere (`classes`, for semantic segmentation).",
        choices=("segments", "classes"),
        flag=True,
    )
    classifier: str = setting(
        "text",
        "How queries are classified: by their cosine with the label vectors (`text`), or by layers that know nothing "
        "of words: `heads`, one for each label space (the multi-head baseline), or the `union`, one output for each "
        "column (with `merge = name` the paper's manual taxonomy).",
        choices=("text", "heads", "union"),
        flag=True,
    )
    text_attention: bool = setting(
        True, "Whether queries look at the label vectors of the dataset (category-guided decoding); only with `text`."
    )
    attention_order: str = setting(
        "visual-text",
        "What queries look at first in each layer, the image or the words (Table 5).",
        choices=("visual-text", "text-visual"),
    )
    text_tower: str = setting(
        "",
        "The bank's `open_clip:MODEL/…` encoder, to learn vectors before the labels' texts in it (the paper's prompt); "
        "the tower itself stays as it is. Where empty, label vectors are the bank's.",
        metavar="SPEC",
    )
    prompt_vectors: int = setting(8, "How many such vectors there are.", minimum=1)
    space_queries: bool = setting(False, "Whether each label space has queries of its own, as in RESI.")
    queries: int = setting(100, "How many segments an image can have.", minimum=1, flag=True)
    query_dim: int = setting(256, "Channels of queries and of pixel features.", minimum=8)
    decoder_layers: int = setting(6, "Layers of the query decoder; every one is supervised.", minimum=1)
    pixel_layers: int = setting(0, "Transformer layers over the coarsest features; the paper has 6 for panoptic.")
    attention_heads: int = setting(8, "Heads of each attention; a divisor of `query_dim`.", minimum=1)
    drop_path: float = setting(0.1, "Share of skipped residual branches in the last decoder layer.", below=1)
    void: str = setting(
        "unknown",
        "What pixels without a label are: neither right nor wrong (`unknown`), or in no segment (`negative`, as in the "
        "paper's code).",
        choices=("unknown", "negative"),
    )
    focal_weight: float = setting(20.0, "Factor of the masks' focal loss.")
    dice_weight: float = setting(1.0, "Factor of the masks' dice loss.")
    box_weight: float = setting(1.0, "Factor of the projection loss, by which boxes teach masks; 0 leaves boxes out.")
    nothing_weight: float = setting(0.1, "Weight of queries without a segment in the classification loss.", maximum=1)
    query_temperature: float = setting(0.07, "τ of the cosines at the start; it is learned.", minimum=0.01, maximum=1)
    segment_score: float = setting(
        0.7,
        "A query becomes a segment if its class is at least this probable; `--segment-score` of `eval` and `predict` "
        "takes another value.",
        maximum=1,
        flag=True,
    )
    segment_overlap: float = setting(
        0.8, "A segment of which less than this share is left, because surer ones cover it, is dropped.", maximum=1
    )

    def __post_init__(self) -> None:
        wrong = problems(self)
        if not wrong and self.query_dim % (2 * self.attention_heads):
            wrong.append(f"query_dim {self.query_dim} must be a multiple of 2 * attention_heads {self.attention_heads}")
        if self.text_tower and self.classifier != "text":
            wrong.append(f"text_tower is for classifier text, and {self.classifier} knows no texts")
        refuse(wrong)

    def idle(self) -> list[str]:
        """Which settings were set without effect, a line each."""
        if self.classifier != "text":
            words = ("text_attention", "attention_order", "query_temperature", "prompt_vectors")
            return idle(self, words, f"classifier = {self.classifier} knows no words")
        without = [] if self.text_tower else idle(self, ["prompt_vectors"], "there is no text_tower")
        return without if self.text_attention else [*without, *idle(self, ["attention_order"], "no text_attention")]
