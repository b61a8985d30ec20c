from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import TaxonomyError
from labelmerge.labels import LabelKey
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.taxonomy import HEADER, read_taxonomy

GOOD = """dataset,index,name,group
a,0,road,street
a,1,"sky, heaven",sky
b,0,lane,street
"""


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    texts = {("a", 0): "road", ("a", 1): "sky, heaven", ("b", 0): "lane", ("c", 4): "sky"}
    vectors = {("a", 0): [1.0, 0], ("a", 1): [0, 1.0], ("b", 0): [1.0, 0], ("c", 4): [-1.0, 0]}
    return make_bank({key: (f"{text}", vectors[key]) for key, text in texts.items()})


def names(bank: Bank) -> dict[LabelKey, str]:
    return dict(zip(bank.keys, bank.names, strict=True))


def read(path: Path, bank: Bank) -> dict[LabelKey, tuple[str, ...]]:
    return {entry.key: entry.concepts for entry in read_taxonomy(path, names(bank)).entries}


def test_what_a_merge_writes_is_read_back(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text(by_similarity(bank, 0.9).table())
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == HEADER
    assert rows == [
        ["a", "0", "road", "road", "text", "1.00", ""],
        ["a", "1", "sky, heaven", "sky", "text", "1.00", ""],
        ["b", "0", "lane", "road", "text", "1.00", ""],
        ["c", "4", "sky", "sky (c)", "text", "1.00", ""],  # another class, so another name
    ]
    expected = {("a", 0): ("road",), ("b", 0): ("road",), ("a", 1): ("sky",), ("c", 4): ("sky (c)",)}
    assert read(path, bank) == expected


def test_labels_may_stand_for_several_concepts(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text(
        'dataset,index,name,concepts,evidence,confidence,note\nb,0,lane,road; lane ;road,text,0.5,"a; b"\n'
        'a,0,road,road,,,\na,1,"sky, heaven",sky,curated+pixels,1,\n'
    )
    found = read_taxonomy(path, names(bank))
    lane = found["b", 0]
    assert (lane.concepts, lane.evidence, lane.confidence, lane.note) == (("road", "lane"), "text", 0.5, "a; b")
    assert found.concepts == ("road", "lane", "sky") and found["a", 0].evidence == "person"
    assert found.sets.tolist() == [[True, False, False], [False, False, True], [True, True, False]]
    path.write_text(found.table())
    assert read_taxonomy(path, names(bank)).entries == found.entries


@pytest.mark.parametrize(
    "edited",
    [
        GOOD,
        GOOD.replace(",", ";").replace('"sky; heaven"', '"sky, heaven"'),  # as spreadsheets save it in some countries
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        GOOD + ",,,\n\n",
        GOOD.replace("street", " street "),
        'group,note,name,index,dataset\nstreet,,road,0,a\nsky,,"sky, heaven",1,a\nstreet,"two\nlines",lane,0,b\n',
    ],
    ids=["as it is", "semicolons", "byte order mark", "blank rows", "blanks", "other columns"],
)
def test_what_a_person_saves_is_read(bank: Bank, tmp_path: Path, edited: str) -> None:
    path = tmp_path / "mapping.csv"
    path.write_text(edited, encoding="utf-8", newline="")
    assert read(path, bank) == {("a", 0): ("street",), ("a", 1): ("sky",), ("b", 0): ("street",)}


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (GOOD.replace("b,0", "bb,0"), r"line 4: there is no dataset 'bb' here \(Did you mean b\?\)"),
        (GOOD.replace("a,1", "a,3"), r"line 3: a has no label 3: 'sky, heaven' is 1; a 1 \(sky, heaven\) is missing"),
        (GOOD.replace("a,1", "a,one"), "line 3: the index 'one' is not a whole number; a 1"),
        (GOOD.replace("a,0,road", "a,0,lane"), "line 2: a 0 is 'road', not 'lane'"),
        (GOOD.replace("lane,street", "lane,"), r"line 4: b 0 \(lane\) has no concept"),
        (GOOD + "a,0,road,other\n", r"line 5: a 0 \(road\) is in line 2 already"),
        (GOOD.replace('a,1,"sky, heaven",sky\n', ""), r"a 1 \(sky, heaven\) is missing"),
        (GOOD.replace('"', ""), "line 3: has more fields than the first line"),
        (
            GOOD.replace("group", "class"),
            "has no column 'concepts'. The first line must begin with dataset,index,name,concepts",
        ),
        (GOOD.replace("lane,street", "lane,Street"), "line 4: 'Street' is spelled 'street' in line 2"),
        (GOOD.replace("group", "concepts,confidence").replace("\n", ",2\n"), "the confidence '2' is not a number"),
        ("dataset,index,name,group\n", "it has no rows"),
        ("", "has no column 'dataset' or"),
        ("group,name,labels,lowest_cosine,dataset,index\n", "is the table of classes, to be read. Give taxonomy.csv"),
        (GOOD.replace("street\na", 'street\n"a'), "can't be read as CSV"),
    ],
)
def test_mistakes_are_told_with_their_lines(bank: Bank, tmp_path: Path, edited: str, message: str) -> None:
    path = tmp_path / "mapping.csv"
    path.write_text(edited, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=message) as error:
        read_taxonomy(path, names(bank))
    assert "\n" not in str(error.value)


def test_many_missing_labels_are_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text("dataset,index,name,concepts\na,0,thing 0,thing\n")
    known = {("a", number): f"thing {number}" for number in range(20)}
    with pytest.raises(TaxonomyError, match=r"19 labels of a are missing: 1 \(thing 1\), .* and 16 more$"):
        read_taxonomy(path, known)


def test_all_mistakes_are_told_at_once_and_files_that_are_none(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "mapping.csv"
    path.write_text("dataset,index,name,group\n" + "x,0,y,z\n" * 20)
    with pytest.raises(TaxonomyError, match="line 2: .*line 9: .*and 12 more"):
        read_taxonomy(path, names(bank))
    path.write_bytes(b"dataset,index,name,group\na,0,stra\xdfe,x\n")
    with pytest.raises(TaxonomyError, match="is not UTF-8"):
        read_taxonomy(path, names(bank))
    with pytest.raises(TaxonomyError, match="no such file"):
        read_taxonomy(tmp_path / "nothing.csv", names(bank))
