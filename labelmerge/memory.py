"""How the C library deals with large pieces of memory."""

from __future__ import annotations

import numpy as np

_HIGHEST = (32 << 20) - (64 << 10)  # bytes; a little below the highest threshold that glibc lets itself raise


def keep_memory() -> None:
    """Have the C library reuse the memory of pictures instead of giving it back and asking for it anew, each time.

    Fresh memory costs a page fault for every 4 KiB: a fifth of the time of writing shards. glibc maps what is larger
    than a threshold, which rises to the size of any mapped block that is freed, up to 32 MiB: such a block is asked for
    and let go, never written to (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    np.empty(_HIGHEST, dtype=np.uint8)
