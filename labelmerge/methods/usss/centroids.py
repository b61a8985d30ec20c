"""Label embeddings: where the labels lie among the features of a supervised network (USSS, appendix A)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from labelmerge.errors import ConfigError, SampleError
from labelmerge.labels import LabelKey
from labelmerge.loading.datasets import DatasetShards
from labelmerge.methods.restore import load_trained
from labelmerge.model.build import SegmentationModel
from labelmerge.model.views import Views

Floats = npt.NDArray[np.float64]

_KEPT = 64  # features of a label in one image that k-means sees
_log = logging.getLogger(__name__)


def label_centroids(
    runs: Sequence[str],
    sources: Sequence[DatasetShards],
    keys: Sequence[LabelKey],
    *,
    count: int,
    dim: int,
    device: torch.device,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The centroids of every label among the features of its dataset's labelled pixels.

    Features of each label space are reduced to `dim` dimensions by a PCA of their own, so that those of two label
    spaces have no direction in common; what makes one space of them is the entropy head alone.

    Args:
        runs: supervised runs or checkpoints; a label space is seen by the first that was trained with labels of it.
        sources: the labelled datasets.
        keys: the labels.
        count: centroids of each.

    Returns:
        float32 ``[labels, count, dim]`` of unit length, and bool ``[labels, count]``, which of them there are: a label
        that no pixel has has none.

    Raises:
        ConfigError: no run knows a label space.
        CheckpointError, ShardError: a run, or the shards, can't be read.
    """
    trained = [load_trained(Path(run), device) for run in runs]

    def network(space: str) -> tuple[SegmentationModel, Views]:
        for each in trained:
            if any(key[0] == space for key in each.learner.vocabulary.keys):
                return each.learner.model, Views(short_edge=each.checkpoint.short_edge_of(space))
        raise ConfigError(
            f"no run of `supervised` was trained with labels of {space}",
            fix="Add one, or use label_embeddings = random or bank",
        )

    return _of_all_labels(network, sources, keys, count=count, dim=dim)


def centroids_now(
    model: SegmentationModel,
    sources: Sequence[DatasetShards],
    keys: Sequence[LabelKey],
    *,
    dim: int,
    short_edge_of: Callable[[str], int],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The same, one of each label, of a network in training (C(F) of eq. 7): ``[labels, 1, dim]``, ``[labels, 1]``.

    `short_edge_of`: a dataset's images at scale 1.
    """
    before = model.training
    model.eval()
    try:
        return _of_all_labels(
            lambda space: (model, Views(short_edge=short_edge_of(space))), sources, keys, count=1, dim=dim
        )
    finally:
        model.train(before)


def moved(old: Floats, new: Floats, decay: float) -> Floats:
    """Eq. 7 of appendix B: ``decay · old + (1 - decay) · new``, at unit length.

    Every PCA has axes of its own, so the new centroids are turned onto the old ones first (orthogonal Procrustes),
    which the paper doesn't say. What counts, their angles to each other, stays as it is.

    Args:
        old, new: unit vectors ``[K, dim]``, row by row of the same labels.
    """
    left, _, right = np.linalg.svd(new.T @ old)
    points = decay * old + (1 - decay) * new @ (left @ right)
    out: Floats = points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)
    return out


def _of_all_labels(
    network: Callable[[str], tuple[SegmentationModel, Views]],
    sources: Sequence[DatasetShards],
    keys: Sequence[LabelKey],
    *,
    count: int,
    dim: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """As `label_centroids`, of the network that knows a label space, as it is shown images."""
    place = {key: row for row, key in enumerate(keys)}
    centroids = np.zeros((len(keys), count, dim), dtype=np.float32)
    found = np.zeros((len(keys), count), dtype=np.bool_)
    for name in dict.fromkeys(source.space.name for source in sources):
        model, views = network(name)
        own = [source for source in sources if source.space.name == name]
        for index, points in class_centroids(_features(model, views, own), count=count, dim=dim).items():
            if (name, index) in place:
                row = place[name, index]
                centroids[row, : len(points)], found[row, : len(points)] = points, True
    return centroids, found


def class_centroids(
    images: Iterator[tuple[Floats, npt.NDArray[np.int64]]], *, count: int, dim: int
) -> dict[int, Floats]:
    """The centroids of each class after a PCA of all features.

    Args:
        images: for each image the features ``[n, F]`` of its labelled pixels, and their classes ``[n]``.
        count: centroids of each class: its mean, or centres of k-means.
        dim: dimensions that are kept; where there are fewer, zeros follow.

    Returns:
        For each class that occurs ``[1..count, dim]``, of unit length.
    """
    total, squares, number = np.zeros(0), np.zeros((0, 0)), 0
    sums: dict[int, Floats] = {}
    pixels: dict[int, int] = {}
    kept: dict[int, list[Floats]] = {}
    for features, classes in images:
        if not number:
            total, squares = np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        total, squares, number = total + features.sum(0), squares + features.T @ features, number + len(features)
        for index in np.unique(classes).tolist():
            own = features[classes == index]
            sums[index] = sums.get(index, 0) + own.sum(0)
            pixels[index] = pixels.get(index, 0) + len(own)
            if count > 1:
                kept.setdefault(index, []).append(own[np.linspace(0, len(own) - 1, min(_KEPT, len(own))).astype(int)])
    if not number:
        return {}
    mean = total / number
    basis = _principal(squares / number - np.outer(mean, mean), dim)  # [F, dim]
    out = {}
    for index in sorted(sums):
        if count > 1:
            points = _centres((np.concatenate(kept[index]) - mean) @ basis, count)
        else:
            points = ((sums[index] / pixels[index] - mean) @ basis)[None]
        out[index] = points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)
    return out


def _principal(covariance: Floats, dim: int) -> Floats:
    """The directions of largest variance, ``[F, dim]``; the largest part of each is positive."""
    _, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, :dim]
    largest = np.abs(basis).argmax(axis=0)
    basis = basis * np.sign(basis[largest, np.arange(basis.shape[1])])
    padded: Floats = np.pad(basis, ((0, 0), (0, dim - basis.shape[1])))
    return padded


def _centres(points: Floats, count: int) -> Floats:
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(points, axis=0)))
    centres: Floats = KMeans(count, n_init=4, random_state=0).fit(points).cluster_centers_
    return centres


@torch.inference_mode()
def _features(
    model: SegmentationModel, views: Views, sources: Sequence[DatasetShards]
) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    """What the network makes of every labelled image: features and classes of its own grid's labelled cells."""
    device = next(model.parameters()).device
    for source in sources:
        for number in range(len(source)):
            try:
                sample = source.fetch(number).decode()
            except SampleError as error:
                _log.warning("skipped %s", error)
                continue
            assert sample.mask is not None
            height, width = sample.mask.shape
            pixels = torch.from_numpy(sample.image.copy()).to(device).permute(2, 0, 1)[None].float() / 255
            shown = interpolate(pixels, views.sizes(height, width)[0], mode="bilinear", antialias=True)
            features = model(model.normalise(shown))[0].double().cpu().numpy()  # [F, h, w]
            rows, columns = (
                (2 * np.arange(cells) + 1) * side // (2 * cells)
                for cells, side in zip(features.shape[1:], (height, width), strict=True)
            )
            classes = sample.mask[rows][:, columns].astype(np.int64)
            labelled = classes != source.space.ignore_index
            yield features[:, labelled].T, classes[labelled]
