"""Tars that webdataset writes and labelmerge reads, beside Python's tarfile."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.errors import OutputError, ShardError
from labelmerge.shardset.tar import ShardWriter, read_index, read_samples

Samples = list[tuple[str, dict[str, bytes]]]

SAMPLES: Samples = [
    (f"x-{number:09d}", {"jpg": bytes([number]) * size, "json": b"{}", "mask.png": b"m" * number})
    for number, size in enumerate((0, 1, 511, 512, 513, 70_000))
]


def written(samples: Samples) -> tuple[bytes, str, int]:
    out = io.BytesIO()
    with ShardWriter(out) as writer:
        for key, members in samples:
            writer.write(key, members)
    return out.getvalue(), writer.sha256, writer.bytes


def by_tarfile(samples: Samples) -> bytes:
    """What a shard should be: POSIX headers without time and owner, members sorted by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for name, data in sorted(members.items()):
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["jpg", "json", "mask.png"]), st.binary(max_size=1200), min_size=1), max_size=4
    )
)
def test_a_shard_is_what_tarfile_makes_of_it_without_time_and_owner(members: list[dict[str, bytes]]) -> None:
    samples = [(f"streets-train-{number:09d}", each) for number, each in enumerate(members)]
    data, digest, size = written(samples)
    assert data == by_tarfile(samples)
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_writing_imports_no_torch_and_leaves_webdataset_whole() -> None:
    code = (
        "import io, sys\n"
        "from labelmerge.shardset.tar import ShardWriter\n"
        "with ShardWriter(io.BytesIO()) as writer:\n"
        "    writer.write('a', {'json': b'{}'})\n"
        "assert 'torch' not in sys.modules\n"
        "import torch, webdataset\n"
        "assert issubclass(webdataset.WebDataset, torch.utils.data.IterableDataset)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_key_that_is_too_long_for_a_tar_is_refused() -> None:
    with pytest.raises(OutputError, match="too many for a tar"), ShardWriter(io.BytesIO()) as writer:
        writer.write("x" * 95, {"mask.png": b""})


def test_samples_and_index_give_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(written(SAMPLES)[0])
    faults: list[tuple[str, str]] = []
    assert list(read_samples(path, lambda key, what: faults.append((key, what)))) == SAMPLES
    assert list(read_samples(path, lambda key, what: faults.append((key, what)), ["json"])) == [
        (key, {"json": b"{}"}) for key, _ in SAMPLES
    ]
    assert faults == []
    index = read_index(path)
    data = path.read_bytes()
    assert index.keys.tolist() == [key.encode() for key, _ in SAMPLES]
    for (_, members), places in zip(SAMPLES, index.places.tolist(), strict=True):
        assert {name: data[start:end] for name, (start, end) in zip(index.members, places, strict=True)} == members


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_shards_that_tarfile_wrote_are_read_too(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for key, members in SAMPLES:
            for name, data in members.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mtime, info.uname = len(data), 1_700_000_000, "somebody"
                tar.addfile(info, io.BytesIO(data))
    assert list(read_samples(path, lambda *fault: pytest.fail(str(fault)))) == SAMPLES
    assert len(read_index(path).keys) == len(SAMPLES)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: b"x" * 2048, "is not a whole tar"),
        (lambda data: data[:700] + b"\xff" * 5000, "is not a whole tar"),
        (lambda data: data[: data.index(b"m" * 5) + 2], "it ends within 'x-000000005.mask.png'"),
        (lambda data: data[:124] + b"00000000100" + data[135:], "is not a whole tar (bad checksum at byte 0)"),
        (lambda data: data[:124] + b"99999999999" + data[135:], "is not a whole tar (bad checksum at byte 0)"),
        (lambda data: data.replace(b"x-000000002", b"../../etc-2")[:], "bad checksum"),
        (lambda data: b"", "is not a whole tar (empty header at byte 0)"),
        (lambda data: data[:400], "is not a whole tar (truncated header at byte 0)"),
    ],
    ids=["no-tar", "damaged", "cut", "size", "size-digits", "name", "empty", "half-a-header"],
)
def test_damage_is_reported_and_never_indexed(tmp_path: Path, change: object, what: str) -> None:
    assert callable(change)
    path = tmp_path / "a.tar"
    path.write_bytes(change(written(SAMPLES)[0]))
    faults: list[str] = []
    list(read_samples(path, lambda key, fault: faults.append(fault)))
    assert what in "; ".join(faults)
    with pytest.raises(ShardError, match="not a whole tar.*labelmerge verify"):
        read_index(path)


def test_a_member_that_occurs_twice_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(by_tarfile(SAMPLES[:1])[:2048] + by_tarfile(SAMPLES[:1]))
    faults: list[tuple[str, str]] = []
    list(read_samples(path, lambda key, what: faults.append((key, what))))
    assert ("x-000000000", "member json occurs twice") in faults
    with pytest.raises(ShardError, match="x-000000000: member .* occurs twice"):
        read_index(path)
