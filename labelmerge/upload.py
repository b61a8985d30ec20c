"""Files → a URL: a repository of the Hugging Face hub, or whatever else fsspec writes to.

What is there already and equal is not sent again, so that the same call again goes on where one broke off; what is
there and differs is replaced on request alone. Files that say what others are (manifests, indices) come last.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from labelmerge import network
from labelmerge.errors import OutputError, RemoteError, UsageError
from labelmerge.files import copy_file, sha256_file, write_bytes
from labelmerge.hub import ask_hub
from labelmerge.network import first_pauses, is_here, is_web, open_system, patiently
from labelmerge.progress import Track, no_track
from labelmerge.remote import list_files
from labelmerge.text import counted, some

Content = Path | bytes

CARD = "README.md"
RECORD = ".pushed.json"
_LAST = (CARD, "bank.json", "croissant.json", "finished.json", "manifest.json", "meta.json")
_AT_ONCE = 8
_SECONDS = 10.0  # between two records of what is done
_FILES, _BYTES = 200, 5 << 30  # of one commit
_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "hf")  # have no folders; a mistyped bucket is not to be made
_HUB = re.compile(r"hf://(?:(datasets|models)/)?([\w.-]+/[\w.-]+?)(?:@([^/]+))?(?:/(.+?))?/?")
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write there"


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to.

    Attributes:
        url: where; of a repository, its page.
        sent, same, removed: how many files were sent, were there already, and were taken away.
        bytes: how many were sent.
        kept_card: whether a README.md that was there stays, in place of ours.
    """

    url: str
    sent: int
    same: int
    removed: int
    bytes: int
    kept_card: bool


class _Target(Protocol):
    """A place for files.

    Attributes:
        page: its address, for people.
        names: the files that are there.
        ours: those of them that an earlier upload put there.
    """

    page: str
    names: set[str]
    ours: set[str]

    def has(self, name: str, content: Content) -> bool:
        """Whether a file that is there has this content."""

    def send(self, files: Sequence[tuple[str, Content]]) -> Iterator[str]:
        """Send files; yields their names as they arrive."""

    def remove(self, names: Sequence[str]) -> None: ...

    def close(self) -> None: ...


def is_hub(url: str) -> bool:
    """Whether it is a repository of the hub."""
    return url.startswith("hf://")


def check_url(url: str) -> None:
    """Refuse where nothing can be sent, before anything is made for it.

    Raises:
        UsageError: the address can't be one.
        RemoteError: nobody is logged in to the hub.
    """
    if is_web(url):
        raise UsageError(f"{url}: a web server accepts no uploads", fix="Give s3://, gs:// or hf://, …")
    if is_hub(url):
        from huggingface_hub import get_token

        if _HUB.fullmatch(url) is None:
            fix = "Write hf://datasets/OWNER/NAME or hf://OWNER/NAME"
            raise UsageError(f"{url} is not the address of a repository", fix=fix)
        if not get_token():
            raise RemoteError("needs a token", where=url, fix=_LOG_IN)


def upload(
    files: Mapping[str, Content],
    url: str,
    *,
    kind: str = "dataset",
    replace: bool = False,
    public: bool = False,
    own_card: bool = False,
    track: Track = no_track,
) -> Uploaded:
    """Upload files.

    Args:
        files: content, or the file that has it, by name: a relative path with ``/`` between folders.
        url: where to: a folder, or a repository of the hub, which is made where there is none.
        kind: of repository: ``dataset`` or ``model``.
        replace: files that are there and differ, and those of an earlier upload that are none of these now.
        public: whether everybody may see a repository that is made.
        own_card: whether README.md is a user's own. One of ours never replaces another that is there, unless asked to.
        track: progress over files.

    Raises:
        UsageError: the address can't be one, or is of another kind of repository.
        RemoteError: files that differ are there; it can't be reached, or refuses.
    """
    check_url(url)
    target: _Target = _Repository(url, kind, public) if is_hub(url) else _Folder(url)
    there = [name for name in files if name in target.names]
    same = {name for name in track(there, "comparing", len(there)) if target.has(name, files[name])}
    other = [name for name in there if name not in same]
    keep_card = CARD in other and not own_card and not replace
    if keep_card:
        other.remove(CARD)
    wanted = {name: content for name, content in files.items() if not (name == CARD and keep_card)}
    if other and not replace:
        what = f"{counted(len(other), 'file')} already, with other content: {some(sorted(other), 5)}"
        raise RemoteError(f"has {what}", where=url, fix="--replace overwrites them; or push to another place")
    new = sorted(wanted.keys() - same, key=lambda name: (name.rpartition("/")[2] in _LAST, name == CARD, name))
    gone = sorted(target.ours - files.keys()) if replace else []
    try:
        for _ in track(target.send([(name, wanted[name]) for name in new]), f"sending to {url}", len(new)):
            pass
        if gone:
            target.remove(gone)
    finally:
        target.close()
    size = sum(_size(wanted[name]) for name in new)
    return Uploaded(target.page, len(new), len(same), len(gone), size, keep_card)


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sha256(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_file(content)


def _copy(content: Content, path: Path, url: str) -> None:
    """Write a file of this machine, whole or not at all. Raises RemoteError."""
    try:
        if isinstance(content, bytes):
            write_bytes(path, content)
        else:
            copy_file(content, path)
    except OutputError as error:
        fix = "Make room or get access there, and run again: what was done is kept"
        raise RemoteError(error.what, where=url, fix=fix) from error


def read_record(url: str) -> dict[str, str]:
    """What earlier uploads to a URL have put there: SHA-256 by name; nothing where that can't be read."""

    def read() -> bytes:
        system, path = open_system(f"{url.rstrip('/')}/{RECORD}")
        system.invalidate_cache()
        data: bytes = system.cat_file(path)
        return data

    with suppress(FileNotFoundError, ValueError):
        found = json.loads(patiently(url, read, first_pauses()))
        if isinstance(found, dict):
            return {str(name): str(sha256) for name, sha256 in found.items()}
    return {}


def record_bytes(done: Mapping[str, str]) -> bytes:
    """What `read_record` reads."""
    return json.dumps(done, sort_keys=True, indent=0).encode()


# --- any file system --------------------------------------------------------------------------------------------------


class _Folder:
    """A folder of any file system. `RECORD` says what is whole there: name → SHA-256."""

    def __init__(self, url: str) -> None:
        self.page = self._url = url.rstrip("/")
        self._sizes = {name: entry.size for name, entry in list_files(self._url).items()}
        self.names = self._sizes.keys() - {RECORD}
        self._done = read_record(self._url) if RECORD in self._sizes else {}
        self.ours = self._done.keys() & self.names
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def has(self, name: str, content: Content) -> bool:
        return self._sizes.get(name) == _size(content) and self._done.get(name) == _sha256(content)

    def send(self, files: Sequence[tuple[str, Content]]) -> Iterator[str]:
        # A file whose bytes are on their way is whole no longer.
        if any(self._done.pop(name, None) is not None for name, _ in files):
            self._write_record()
        for last in (False, True):
            batch = [(name, content) for name, content in files if (name.rpartition("/")[2] in _LAST) is last]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                jobs = [pool.submit(self._send, name, content) for name, content in batch]
                try:
                    for job in as_completed(jobs):
                        yield job.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise

    def _send(self, name: str, content: Content) -> str:
        url = f"{self._url}/{name}"

        def put() -> None:
            system, path = open_system(url)
            if is_here(url):
                return _copy(content, Path(path), url)
            if self._url.partition(":")[0] not in _STORES:
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if isinstance(content, bytes):
                system.pipe_file(path, content)
            else:
                system.put_file(str(content), path)

        sha256 = _sha256(content)
        try:
            patiently(url, put, network.PAUSES)
        except FileNotFoundError as error:
            raise RemoteError("there is no such bucket, or folder", where=url, fix="Make it first") from error
        with self._lock:
            self._done[name] = sha256
            if time.monotonic() - self._written > _SECONDS:
                self._write_record()
        return name

    def _write_record(self) -> None:
        data = record_bytes(self._done)

        def write() -> None:
            system, path = open_system(f"{self._url}/{RECORD}")
            system.pipe_file(path, data)

        patiently(self._url, write, first_pauses())
        self._written = time.monotonic()

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            system, path = open_system(f"{self._url}/{name}")
            patiently(self._url, lambda system=system, path=path: system.rm_file(path), first_pauses())  # type: ignore[misc]
            self._done.pop(name, None)

    def close(self) -> None:
        if self._done:
            with suppress(RemoteError, OSError):  # what has failed is told by what was being sent
                self._write_record()


# --- the hub ----------------------------------------------------------------------------------------------------------


class _Repository:
    """A repository of the hub, or a folder in it: commits of many files each."""

    def __init__(self, url: str, kind: str, public: bool) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        self._url, self._kind = url, kind
        self._repo, self._revision, self._below = parsed(url, kind)
        disable_progress_bars()
        self._api = HfApi()
        self._ask(ask_hub)
        made = self._ask(lambda: self._api.create_repo(self._repo, repo_type=kind, exist_ok=True, private=not public))
        self.page = f"{made}/tree/{self._revision}/{self._below}" if self._below else str(made)
        self._files = {file.path: file for file in self._ask(self._list)}
        self.names = self._files.keys() - {RECORD}
        # A repository may hold what its owner put there by other means: only what we know to have sent is ours.
        self._done = read_record(self._url) if RECORD in self._files else {}
        self.ours = self._done.keys() & self.names

    def _ask(self, action: Any, pauses: Sequence[float] | None = None) -> Any:
        return patiently(self._url, action, first_pauses() if pauses is None else pauses, _LOG_IN)

    def _list(self) -> Iterable[Any]:
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        start = f"{self._below}/" if self._below else ""
        try:
            tree = self._api.list_repo_tree(
                self._repo, self._below or None, recursive=True, revision=self._revision, repo_type=self._kind
            )
            files = [entry for entry in tree if isinstance(entry, RepoFile)]
        except EntryNotFoundError:
            return []
        for file in files:
            file.path = file.path.removeprefix(start)
        return files

    def has(self, name: str, content: Content) -> bool:
        file = self._files[name]
        if file.size != _size(content):
            return False
        if file.lfs is not None:
            same = bool(file.lfs.sha256 == _sha256(content))
        else:
            data = content if isinstance(content, bytes) else content.read_bytes()
            same = bool(file.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
        if same:
            self._done[name] = ""  # the hub knows the hashes
        return same

    def send(self, files: Sequence[tuple[str, Content]]) -> Iterator[str]:
        from huggingface_hub import CommitOperationAdd

        for batch in _batches(files):

            def commit(batch: Sequence[tuple[str, Content]] = batch) -> None:
                operations = [
                    CommitOperationAdd(self._path(name), content if isinstance(content, bytes) else str(content))
                    for name, content in (*batch, self._record())
                ]
                self._commit(operations, f"labelmerge push: {counted(len(batch), 'file')}")

            self._done |= dict.fromkeys((name for name, _ in batch), "")
            self._ask(commit, network.PAUSES)
            yield from (name for name, _ in batch)

    def remove(self, names: Sequence[str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        self._done = {name: digest for name, digest in self._done.items() if name not in names}
        record, content = self._record()
        operations = [
            *(CommitOperationDelete(self._path(name)) for name in names),
            CommitOperationAdd(self._path(record), content),
        ]
        self._ask(lambda: self._commit(operations, f"labelmerge push: {counted(len(names), 'file')} removed"))

    def close(self) -> None: ...

    def _record(self) -> tuple[str, bytes]:
        return RECORD, record_bytes(self._done)

    def _commit(self, operations: Sequence[Any], message: str) -> None:
        self._api.create_commit(
            self._repo, operations, commit_message=message, repo_type=self._kind, revision=self._revision
        )

    def _path(self, name: str) -> str:
        return f"{self._below}/{name}" if self._below else name


def parsed(url: str, kind: str) -> tuple[str, str, str]:
    """The repository, the revision and the folder in it. Raises UsageError."""
    found = _HUB.fullmatch(url)
    wanted = "hf://datasets/OWNER/NAME" if kind == "dataset" else "hf://OWNER/NAME"
    if found is None or found[2].partition("/")[0] in ("datasets", "models", "spaces", "buckets"):
        raise UsageError(f"{url} is not the address of a repository", fix=f"Write {wanted}")
    if (found[1] == "datasets") is not (kind == "dataset"):
        what = "a dataset, which" if kind == "dataset" else "a model, which"
        raise UsageError(f"{url}: this is {what} goes to a repository of that kind", fix=f"Write {wanted}")
    return found[2], found[3] or "main", found[4] or ""


def _batches(files: Sequence[tuple[str, Content]]) -> Iterator[list[tuple[str, Content]]]:
    """Files for one commit each; files that say what others are, in the last."""
    batch: list[tuple[str, Content]] = []
    size = 0
    for name, content in files:
        if batch and (len(batch) == _FILES or size + _size(content) > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, content))
        size += _size(content)
    if batch:
        yield batch
