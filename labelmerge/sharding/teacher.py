"""The teacher of L_WD, asked once: every box's CLIP image embedding, computed when the shards are made.

The embedding of a box is that of the image cut out along it (Yin et al., IJCV 2024, eq. 6). Boxes of several samples go
through the model together, and the samples wait for it; which ones depends on the shard alone.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from labelmerge.sharding.make import MadeSample

if TYPE_CHECKING:
    from labelmerge.encoders.encoders import ImageEncoder

_CUTOUTS = 256
_PIXELS = 50_000_000  # of all that waits: 150 MB


@lru_cache(maxsize=1)
def load_teacher(spec: str, device: str | None) -> ImageEncoder:
    """The image tower of an ``open_clip:…`` spec, loaded once in every process.

    Raises:
        UsageError, EncoderError: as `load_image_encoder`.
    """
    from labelmerge.encoders.encoders import load_image_encoder

    return load_image_encoder(spec, device)


class Waiting:
    """Samples whose boxes are not embedded yet; without a teacher none ever waits."""

    def __init__(self, teacher: ImageEncoder | None) -> None:
        self._teacher = teacher
        self._samples: list[MadeSample] = []
        self._cutouts = 0
        self._pixels = 0

    def add(self, sample: MadeSample) -> list[MadeSample]:
        """Take a sample; the samples that need to wait no longer, complete and in order."""
        self._samples.append(sample)
        self._cutouts += len(sample.cutouts)
        self._pixels += sum(cutout.width * cutout.height for cutout in sample.cutouts)
        if self._teacher is None or self._cutouts >= _CUTOUTS or self._pixels >= _PIXELS:
            return self.rest()
        return []

    def rest(self) -> list[MadeSample]:
        """All that wait, complete and in order."""
        done, self._samples, self._cutouts, self._pixels = self._samples, [], 0, 0
        if self._teacher is not None and done:
            cutouts = [cutout for sample in done for cutout in sample.cutouts]
            vectors = self._teacher.encode_images(cutouts, batch_size=_CUTOUTS).astype(np.float16)
            start = 0
            for sample in done:
                end = start + len(sample.cutouts)
                out = BytesIO()
                np.save(out, vectors[start:end], allow_pickle=False)
                sample.members["box_embeddings.npy"] = out.getvalue()
                start = end
        return done
