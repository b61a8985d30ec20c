"""One shard as it is read: a tar in a folder here, or at a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from labelmerge.errors import ShardError
from labelmerge.files import sha256_file
from labelmerge.shardset.remote import open_remote
from labelmerge.urls import remote_url


@dataclass(frozen=True)
class Shard:
    """A shard that a manifest lists; as text it is its path, or its URL.

    Attributes:
        path: where it lies, or would lie if its folder were here.
        url: where it is fetched from when it is opened; None: it lies here.
        samples, nbytes, sha256: as the manifest says.
    """

    path: Path
    url: str | None
    samples: int
    nbytes: int
    sha256: str

    def __str__(self) -> str:
        return self.url or str(self.path)

    def open(self, mode: Literal["rb"] = "rb", buffering: Literal[0] = 0) -> IO[bytes]:
        """Open it to be read.

        Raises:
            OSError: it lies here, and can't be read.
            ShardError: it lies elsewhere and can't be fetched (`labelmerge.shardset.remote.open_remote`).
        """
        if self.url is None:
            return self.path.open(mode, buffering)
        return open_remote(self.url, self.nbytes, self.sha256)

    def as_written(self) -> bool:
        """Whether it is to the last bit what the manifest says. (One from a URL was, when it was fetched.)

        That reads all of it: for whoever reads all of it anyway, to make something new of it.

        Raises:
            ShardError: it can't be read.
        """
        try:
            return self.url is not None or sha256_file(self.path) == self.sha256
        except OSError as error:
            raise ShardError(f"can't be read ({error.strerror})", where=self.path) from error


def shards_of(folder: Path, manifest: Mapping[str, Any]) -> tuple[Shard, ...]:
    """The shards of a split, in their order.

    Args:
        folder: of the split, as `labelmerge.shardset.splits.find_splits` gives it.
        manifest: as `labelmerge.shardset.manifest.read_manifest` gives it.
    """
    url = remote_url(folder)
    return tuple(
        Shard(folder / each["name"], url and f"{url}/{each['name']}", each["samples"], each["bytes"], each["sha256"])
        for each in manifest["shards"]
    )
