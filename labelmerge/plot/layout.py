"""Where labels lie on a flat map: similar meanings side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.float64]

_NEIGHBOURS = 30.0  # t-SNE's perplexity: about how many neighbours a point tries to keep
_STEPS = 500
_FEWEST = 5  # points for which neighbourhoods mean anything


def flat_map(vectors: Vectors, seed: int = 0) -> Places:
    """Places on a plane in which near vectors stay near: float64 [K, 2], each axis within 0..1, aspect kept.

    t-SNE of the cosine distances (L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", JMLR 9, 2008), begun
    from the two widest directions, so that far groups keep their rough places too. Distances between far groups mean
    little. The same vectors and seed give the same map on one machine. Fewer than five vectors lie by their two widest
    directions alone.

    Args:
        vectors: float32 [K, D], rows of unit length, or of zeros where a label has no vector.
        seed: of the optimisation.
    """
    begin = _widest_plane(vectors)
    if len(vectors) < _FEWEST or not begin.any():
        return _unit_square(begin)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(
        metric="cosine",
        init=begin * (1e-4 / max(float(begin[:, 0].std()), 1e-12)),
        perplexity=min(_NEIGHBOURS, (len(vectors) - 1) / 3),
        max_iter=_STEPS,
        random_state=seed,
        n_jobs=1,
    )
    with threadpool_limits(
        1
    ):  # sums over threads differ from run to run; and threads that wait cost more than they save
        return _unit_square(np.asarray(tsne.fit_transform(vectors), dtype=np.float64))


def _widest_plane(vectors: Vectors) -> npt.NDArray[np.float32]:
    """The vectors in their first two principal components: float32 [K, 2]; each points to its largest entry."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(vectors), 2))
    kept = min(2, len(sizes))
    plane[:, :kept] = left[:, :kept] * sizes[:kept]
    peaks = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    flat: npt.NDArray[np.float32] = (plane * np.where(peaks < 0, -1, 1)).astype(np.float32)
    return flat


def _unit_square(places: npt.NDArray[np.floating]) -> Places:
    """`places` moved and scaled, alike on both axes, into the unit square, in its middle."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = float((high - low).max())
    if extent == 0:
        return np.full((len(places), 2), 0.5)
    inside: Places = np.clip((places.astype(np.float64) - (low + high) / 2) / extent + 0.5, 0, 1)
    return inside
