"""Label lists as people write them, and what they find in a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.bank.store import PROBE
from labelmerge.encoders import encoders
from labelmerge.errors import BankError, DescriptionsError, UsageError
from labelmerge.names import sentence
from labelmerge.predict.queries import LabelQuery, parse_labels, read_labels, resolve

LABELS = [
    ("ade20k", 0, "mouse, computer mouse", "A mouse moves a pointer."),
    ("coco_panoptic", 0, "mouse", "A mouse is held in the hand beside a keyboard."),
    ("coco_panoptic", 1, "wall-brick", "Bricks."),
    ("coco_panoptic", 2, "wall-other-merged", "Any other wall."),
    ("mapillary", 0, "construction--flat--road", "A road is for vehicles."),
    ("streets", 0, "road", "A road is for vehicles."),
    ("zoo", 0, "mouse", "A mouse is a rodent."),
    ("zoo", 1, "Road", "A road is for visitors."),
]


class FakeEncoder:
    """Gives every text the vector that the tools' bank gives it."""

    max_tokens = 77

    def __init__(self, bank: Bank) -> None:
        self.bank, self.spec, self.dim = bank, "offline", bank.dim
        self.identity = bank.identity
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], **_: Any) -> npt.NDArray[np.float32]:
        self.encoded += texts
        return np.stack([self.vector(text) for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        tokens = [len(text.split()) + 2 for text in texts]
        return tokens, [number > self.max_tokens for number in tokens]

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        vector = np.random.default_rng(list(text.encode())).normal(size=self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.fixture
def bank(tools: Any) -> Bank:
    made: Bank = tools.bank(LABELS)
    return replace(made, probe=FakeEncoder(made).vector(PROBE), version="")


@pytest.fixture
def encoder(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    fake = FakeEncoder(bank)
    monkeypatch.setattr(encoders, "load_encoder", lambda spec, device=None: fake)
    return fake


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deer, grass,sky", [("deer", ""), ("grass", ""), ("sky", "")]),
        ("deer; grass ;sky;", [("deer", ""), ("grass", ""), ("sky", "")]),
        (
            "road, sky; deer = A deer is shy; males, mostly, carry antlers",
            [
                ("road", ""),
                ("sky", ""),
                ("deer", "A deer is shy"),
                ("males", ""),
                ("mostly", ""),
                ("carry antlers", ""),
            ],
        ),
        ("road, deer = Shy, with antlers; sky", [("road", ""), ("deer", "Shy, with antlers"), ("sky", "")]),
        ("zoo:mouse,  traffic \n light", [("zoo:mouse", ""), ("traffic light", "")]),
        ("x = a = b", [("x", "a = b")]),
    ],
)
def test_parse(text: str, expected: list[tuple[str, str]]) -> None:
    assert parse_labels(text) == [LabelQuery(*pair) for pair in expected]


@pytest.mark.parametrize("text", ["", " ,; ", "= A description"])
def test_parse_faults(text: str) -> None:
    with pytest.raises(UsageError):
        parse_labels(text)


def test_read_csv(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('\ufeffname,description,note\ndeer,"Shy, with antlers",x\nsky,,\n', encoding="utf-8")
    assert read_labels(path) == [LabelQuery("deer", "Shy, with antlers"), LabelQuery("sky")]
    path.write_text("name\ndeer\nsky\n")
    assert read_labels(path) == [LabelQuery("deer"), LabelQuery("sky")]
    path.write_text("name;description\ndeer;Shy, with antlers\nsky;\n")  # as spreadsheets save it in some countries
    assert read_labels(path) == [LabelQuery("deer", "Shy, with antlers"), LabelQuery("sky")]
    path = path.with_suffix(".txt")
    path.write_text("deer\nsky\n")
    assert read_labels(path) == [LabelQuery("deer"), LabelQuery("sky")]
    path.write_text("name,description\ndeer,Shy\nsky,\n")  # a table by its first line
    assert read_labels(path) == [LabelQuery("deer", "Shy"), LabelQuery("sky")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"label,text\na,b\n", "no column 'name'"),
        (b"name,description\na,b,c\n", "row 1 has more fields"),
        (b"name,description\n,b\n", "row 1 has no name"),
        (b"name,description\n", "no labels"),
        (b"name\n\xff\n", "not UTF-8"),
        (b'name,description\na,"b\n', "as CSV"),
    ],
)
def test_csv_faults(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DescriptionsError, match=message):
        read_labels(path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("road", "mapillary:0"),  # the text of two datasets, against another one's
        ("ROAD", "mapillary:0"),
        ("zoo:road", "zoo:1"),
        ("mouse", "ade20k:0"),  # three texts, once each: the first in the bank
        ("zoo: mouse", "zoo:0"),
        ("mouse, computer mouse", "ade20k:0"),
        ("wall", "coco_panoptic:2"),
        ("wall-brick", "coco_panoptic:1"),
        ("wall brick", "coco_panoptic:1"),
        ("wall-other-merged", "coco_panoptic:2"),
    ],
)
def test_known_names_need_no_encoder(name: str, source: str, bank: Bank) -> None:
    (label,) = resolve([LabelQuery(name)], bank)
    assert (label.name, label.source) == (name, source)
    dataset, index = source.split(":")
    np.testing.assert_array_equal(label.vector, bank.rows([(dataset, int(index))])[0])


def test_the_choice_among_meanings_is_said(bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="labelmerge")
    resolve([LabelQuery("mouse"), LabelQuery("wall-brick")], bank)
    assert "'mouse' means what it does in ade20k" in caplog.text
    assert "coco_panoptic:mouse, zoo:mouse" in caplog.text
    assert "wall" not in caplog.text


def test_among_equals_a_trained_datasets_meaning_is_taken(bank: Bank) -> None:
    queries = [LabelQuery("mouse"), LabelQuery("road")]
    assert [label.source for label in resolve(queries, bank, trained=["zoo"])] == ["zoo:0", "mapillary:0"]
    # Of the same text, the trained dataset's own label.
    assert [label.source for label in resolve(queries, bank, trained=["streets"])] == ["ade20k:0", "streets:0"]


def test_a_name_of_several_labels_of_a_dataset_is_said(tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ("screen, crt screen", "A tube."),
        ("screen, silver screen", "Cloth."),
        ("bag, purse", "Small."),
        ("bag", ""),
    ]
    bank = tools.bank([("a", number, *row) for number, row in enumerate(rows)])
    assert [label.source for label in resolve(parse_labels('a:bag, "a:bag, purse"'), bank)] == ["a:3", "a:2"]
    assert not caplog.messages
    (screen,) = resolve(parse_labels("a:screen"), bank)
    assert screen.source == "a:0" and caplog.messages == [
        "'a:screen' is taken for a's 'screen, crt screen', and may be 'screen, silver screen': write the whole name"
    ]


def test_all_labels_of_a_dataset(bank: Bank) -> None:
    labels = resolve([LabelQuery("coco_panoptic:*")], bank)
    assert [label.name for label in labels] == ["mouse", "wall-brick", "wall-other-merged"]


def test_a_description_that_the_bank_has_needs_no_encoder(bank: Bank) -> None:
    (label,) = resolve([LabelQuery("road", "A  road is for visitors.")], bank)
    assert label.source == "zoo:1"


def test_a_description_that_is_too_long_is_told(
    bank: Bank, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    resolve([LabelQuery("deer", "Very " * 80 + "shy.")], bank)
    assert "the description of 'deer' has 88 tokens, of which the encoder reads 77" in caplog.text
    caplog.clear()
    resolve([LabelQuery("deer", "Shy.")], bank)
    assert "tokens" not in caplog.text


def test_new_labels_are_encoded(bank: Bank, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="labelmerge")
    labels = resolve([LabelQuery("deer", "Shy."), LabelQuery("road"), LabelQuery("raod")], bank)
    assert encoder.encoded == [PROBE, sentence("deer", "Shy."), sentence("raod", "")]
    assert [label.source for label in labels] == ["new", "mapillary:0", "new"]
    np.testing.assert_array_equal(labels[0].vector, encoder.vector(sentence("deer", "Shy.")))
    assert "'raod' is not a label" in caplog.text and "Did you mean road" in caplog.text
    cosines = bank.vectors @ labels[2].vector
    nearest = int(cosines.argmax())
    said = f"{bank.names[nearest]} of {bank.keys[nearest][0]}, by its bare name (cosine {cosines[nearest]:.2f})"
    assert f"'raod' is nearest in meaning to {said}" in caplog.text and "'deer' is nearest" not in caplog.text


def test_a_bank_of_words_gets_words(bank: Bank, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture) -> None:
    (label,) = resolve([LabelQuery("Red_deer", "Shy.")], replace(bank, prompt=WORD_TEMPLATE, version=""))
    assert label.text == "red deer"
    assert "descriptions are not used" in caplog.text


def test_faults(bank: Bank, encoder: FakeEncoder) -> None:
    for name, message in (
        ("zo:mouse", "no dataset 'zo'. A new label needs a description, NAME = DESCRIPTION. Did you mean zoo?"),
        ("zoo:mous", "no label 'mous'. Did you mean mouse"),
    ):
        with pytest.raises(UsageError) as raised:
            resolve([LabelQuery(name)], bank)
        assert message in str(raised.value)
    with pytest.raises(UsageError, match="given twice: 'road'"):
        resolve([LabelQuery("road"), LabelQuery("sky"), LabelQuery("road")], bank)
    with pytest.raises(BankError, match="were not made from text"):
        resolve([LabelQuery("sky")], replace(bank, probe=np.zeros(0, np.float32), encoder="one-hot", version=""))
    encoder.identity = {**bank.identity, "weights_sha256": "f" * 64}
    with pytest.raises(BankError, match="but the encoder is"):
        resolve([LabelQuery("sky")], bank)


def test_names_in_quotes_may_contain_commas() -> None:
    found = parse_labels('"sofa, couch", bed; "a = b; c" = It is called "c, d", too; deer')
    assert [(query.name, query.description) for query in found] == [
        ("sofa, couch", ""),
        ("bed", ""),
        ("a = b; c", 'It is called "c, d", too'),
        ("deer", ""),
    ]
