"""Files of users: what is read is UTF-8 or one clear line, and outputs appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any

from labelmerge.errors import LabelmergeError, OutputError
from labelmerge.text import some
from labelmerge.urls import url_of

_MOST_SHOWN = 3
_NO_TEXT = re.compile("[\ud800-\udfff]")
_OLD_LINE_END = re.compile("\r(?!\n)")  # of a spreadsheet that saves "CSV (Macintosh)"
PUSH = "Write to a local folder, then `labelmerge push DIR URL`"

_log = logging.getLogger(__name__)


def read_text(path: Path, fault: type[LabelmergeError]) -> str:
    """A text that a person may have saved in a spreadsheet or an editor: UTF-8, with or without a byte order mark.

    Lines that end as on old Macintoshes end as others do.

    Raises:
        `fault`: there is no such file, it can't be read, or it is not UTF-8.
    """
    try:
        return _OLD_LINE_END.sub("\n", path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise fault("no such file", where=path) from None
    except OSError as error:
        raise fault(f"can't be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise fault(f"is not UTF-8 (byte {error.start})", where=path, fix="Save the file as UTF-8") from error


@contextmanager
def output_faults(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into an OutputError that names `path`; a URL is refused at once."""
    if (url := url_of(path)) is not None:
        raise OutputError("only local folders can be written to", where=url, fix=PUSH)
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError("no space left on the device", where=path, fix="Free some space and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError("no permission to write here", where=path, fix="Choose another --out") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise OutputError("a file is where a folder must go", where=path, fix="Choose another --out") from error
        if error.errno == errno.EISDIR:
            raise OutputError("a folder is where a file must go", where=path, fix="Choose another --out") from error
        raise OutputError(f"can't be written ({error.strerror})", where=path, fix="Choose another --out") from error


def say_others(folder: Path, what: str, ours: Sequence[str]) -> None:
    """Log a warning where a folder that is to become one of ours holds other things, and nothing of ours yet.

    It will be measured, moved and pushed as a whole, and the other things with it.

    Args:
        what: it is to become, such as ``a bank``.
        ours: patterns, as `Path.glob` has them, of what such a folder holds.
    """
    try:
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if others and not any(any(folder.glob(pattern)) for pattern in ours):
            shown = some(others, _MOST_SHOWN)
            _log.warning("%s: is to hold %s, and holds other things (%s)", folder, what, shown)
    except OSError:  # there is no such folder, or it can't be listed: who writes there says so
        return


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write `path` through a temporary file beside it; it takes its name, complete and on disk, only on success.

    Raises:
        OutputError: no space, no permission, or something in the way.
    """
    with output_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder beside `path`; it takes its name only on success.

    What processes that were killed have left beside `path` of earlier tries is removed.

    Raises:
        OutputError: no space, no permission, or something in the way: an empty folder is not.
    """
    with output_faults(path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise OutputError("is there already", where=path, fix="Remove it, or choose another --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in path.parent.glob(f".{escape(path.name)}.*.tmp"):
            with _held(left_over) as free:
                if free:
                    shutil.rmtree(left_over, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent))
        temporary = made.with_suffix(".tmp")
        try:
            with _held(made):  # before it has the name that another process would look for
                made.rename(temporary)
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder itself, as long as this process lives; whether that is so: another may, or there are no locks."""
    descriptor = None
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except (ImportError, AttributeError, OSError):
        held = False
    try:
        yield held
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a process that was killed left of files and folders that `atomic_file` and `atomic_folder` make.

    For who holds the folder's lock, or else it may be another process that is still writing. Raises OutputError.
    """
    with output_faults(folder):
        for left_over in folder.glob(".*.tmp"):
            _remove(left_over)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole_or_nothing(paths: Iterable[Path]) -> Iterator[None]:
    """Where the block fails, take away those files and folders of `paths` that it has made, as `no_empty_folders` does.

    What it replaced stays replaced.

    Args:
        paths: what may be made; whatever else appears meanwhile is another's.
    """
    new = [path for path in paths if not os.path.lexists(path)]
    with no_empty_folders(path.parent for path in new):
        try:
            yield
        except BaseException:
            for path in new:
                with suppress(OSError):  # what failed is what is to be said
                    _remove(path)
            raise


@contextmanager
def no_empty_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Where the block fails, take away those of `folders`, and those above, that it has made and that are empty."""
    new = {each for folder in folders for each in (folder, *folder.parents) if not each.exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(new, reverse=True):  # those within others first
            with suppress(OSError):  # it isn't empty, or never was there
                folder.rmdir()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def locked(path: Path, what: str, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which goes away afterwards; a process that dies lets go of it.

    Where the file system or the platform has no locks, a warning says so.

    Args:
        path: the lock file; its folder exists.
        what: what is being protected, for the message.
        shared: several may hold it at once, but none together with one that is not shared.
        wait: until it is free.

    Raises:
        OutputError: another process holds it, and `wait` is false.
    """
    with output_faults(path):
        descriptor = _lock(path, what, shared, wait)
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed by whoever is the last: the others' locks are on the same file.
            if not shared or _only_holder(descriptor):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path, what: str, shared: bool, wait: bool) -> int | None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        _log.warning("%s: no locks on this platform: make sure that nothing else writes here", path.parent)
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                _log.warning("%s: no locks on this file system: make sure that nothing else writes here", path.parent)
                return None
            if not wait:
                os.close(descriptor)
                raise OutputError(
                    f"another process is writing {what}", where=path.parent, fix="Wait for it, or choose another --out"
                ) from error
            _log.info("%s: another process is writing %s, waiting for it", path.parent, what)
            fcntl.flock(descriptor, kind)
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last holder has removed it since: once more


def _only_holder(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def copy_file(source: Path, path: Path) -> None:
    """Write `path` as another file has it, whole or not at all. Raises OutputError."""
    with source.open("rb") as content, atomic_file(path) as stream:
        shutil.copyfileobj(content, stream, 1 << 20)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically; raises OutputError."""
    with atomic_file(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically, bytes of odd file names escaped; raises OutputError."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, data: Any) -> None:
    """Write `data` to `path` as indented JSON, atomically; raises OutputError."""
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    # Bytes of file names that are not UTF-8: as they are shown, for as escapes of JSON they would be half characters.
    write_text(path, _NO_TEXT.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
