"""USSS's label embeddings: centroids of a supervised run's features, those that move, the bank's vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from labelmerge.errors import ConfigError
from labelmerge.methods.method import find_method
from labelmerge.methods.restore import load_trained
from labelmerge.methods.usss.centroids import centroids_now, class_centroids, moved
from labelmerge.processes import Ranks
from labelmerge.train.inputs import read_inputs
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank
from ..train.conftest import STREETS
from ..weights import weights
from .test_usss import CONFIG, FEW, JOINT, MOVING, ROOMS, two

__all__ = ["two"]  # a fixture


def test_centroids_are_class_means_and_turn_with_the_features() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 200)
    centres = np.array([[3.0, 0, 0], [-1, 2, 0]])
    features = centres[classes] + 0.1 * rng.standard_normal((200, 3))

    def found(features: npt.NDArray[Any], count: int = 1) -> dict[int, npt.NDArray[Any]]:
        halves = [(features[half], classes[half]) for half in (slice(0, 90), slice(90, 200))]
        return class_centroids(iter(halves), count=count, dim=3)

    ours = found(features)
    mean = features.mean(0)
    expected = {c: features[classes == c].mean(0) - mean for c in (0, 1)}
    inner = expected[0] @ expected[1] / np.linalg.norm(expected[0]) / np.linalg.norm(expected[1])
    assert all(own.shape == (1, 3) and np.linalg.norm(own) == pytest.approx(1) for own in ours.values())
    assert (ours[0] @ ours[1].T)[0, 0] == pytest.approx(inner)  # a PCA of all dimensions is a rotation
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turned = found(features @ turn)
    assert (turned[0] @ turned[1].T)[0, 0] == pytest.approx(inner)
    assert all(np.allclose(np.abs(turned[c]), np.abs(ours[c])) for c in (0, 1))
    assert found(features, count=3)[1].shape == (3, 3)


def test_a_class_of_two_clumps_has_two_centres() -> None:
    clumps = np.repeat([[5.0, 0], [-5, 0], [0, 5]], 20, axis=0) + 0.01 * np.random.default_rng(0).random((60, 2))
    classes = np.repeat([0, 0, 1], 20)
    own = class_centroids(iter([(clumps, classes)]), count=2, dim=2)
    assert own[0].shape == (2, 2) and float(own[0][0] @ own[0][1]) < 0.5  # on both sides
    assert float(own[1][0] @ own[1][-1]) > 0.99


def test_centroids_that_move_are_averages_of_turned_ones() -> None:
    """Eq. 7."""
    rng = np.random.default_rng(0)

    def unit(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

    def turn(size: int) -> npt.NDArray[Any]:
        return np.asarray(np.linalg.qr(rng.standard_normal((size, size)))[0])

    old, new = unit(rng.standard_normal((6, 4))), unit(rng.standard_normal((6, 4)))
    assert np.allclose(moved(old, new, 1.0), old)
    fresh = moved(old, new, 0.0)
    assert np.allclose(fresh @ fresh.T, new @ new.T)  # turned, and nothing else
    assert all(((fresh - old) ** 2).sum() <= ((new @ turn(4) - old) ** 2).sum() for _ in range(200))
    assert np.allclose(
        moved(old, new, 0.3), unit(np.array([0.3 * a + 0.7 * b for a, b in zip(old, fresh, strict=True)]))
    )
    few = old[:2]  # fewer labels than dimensions
    assert np.allclose(moved(few, few @ turn(4), 0.5), few)


@pytest.mark.parametrize("how", ["centroids", "bank"])
def test_label_embeddings_of_a_run_or_the_bank(how: str, two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    config = CONFIG.changed(label_embeddings=how, centroids_per_label=2, steps=2)
    if how == "centroids":
        with pytest.raises(ConfigError, match="centroids need a supervised run.*label_embeddings=random"):
            train([shards], bank, tmp_path / "none", config=config, device="cpu")
        first = train([shards], bank, tmp_path / "first", config=JOINT, device="cpu")
        config = config.changed(supervised=[str(first.run)])
    run = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    points = weights(run)["embeddings"]
    assert torch.allclose(points.norm(dim=2)[weights(run)["known"]], torch.tensor(1.0), atol=1e-5)
    if how == "bank":
        assert points.shape == (5, 1, toy_bank([STREETS, ROOMS]).dim)
    else:
        assert points.shape == (5, 2, 8) and float(points[0, 0] @ points[1, 0]) < 0.9
        only = config.changed(supervised=[str(first.run)], labelled=FEW)
        other = Toy("yards", ("grass", "car"), colours=(1, 2)).write(shards)
        toy_bank([STREETS, ROOMS, Toy("yards", ("grass", "car"))]).save(tmp_path / "more")
        with pytest.raises(ConfigError, match="no run of `supervised` was trained with labels of yards"):
            train(
                [shards, other], tmp_path / "more", tmp_path / "three", config=only.changed(batch_size=5), device="cpu"
            )


def test_centroids_move_with_the_network_in_training(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    own = MOVING.changed(views={"streets": {"short_edge": 24}})
    stays, moves = (
        train([shards], bank, tmp_path / name, config=config, device="cpu")
        for name, config in (("stays", CONFIG), ("moves", replace(own, keep_checkpoints=9)))
    )
    lines = [json.loads(line) for line in (moves.run / "log.jsonl").read_text().splitlines()]
    assert all(-1 < line["centroids_stayed"] < 0.999 for line in lines)
    assert not torch.equal(weights(stays)["embeddings"], weights(moves)["embeddings"])
    # The last move is that of the finished network, from where the first had left them.
    before = weights(moves.run / "checkpoints/step-000002")["embeddings"][:, 0].double().numpy()
    trained = load_trained(moves.run)
    sources = read_inputs([shards], bank, "train", own, find_method("usss"), Ranks()).mixture.sources
    labelled = [source for source in sources if source.annotation_type != "image"]
    keys = trained.learner.vocabulary.keys
    new, found = centroids_now(
        trained.learner.model, labelled, keys, dim=8, short_edge_of={"streets": 24, "rooms": 0}.__getitem__
    )
    assert found.all() and new.shape == (5, 1, 8)
    expected = np.concatenate(
        [moved(before[rows], new[rows, 0].astype(np.float64), 0.5) for rows in (slice(0, 2), slice(2, 5))]
    )
    assert np.allclose(weights(moves)["embeddings"][:, 0].numpy(), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"one of each label: centroids_per_label = 1"):
        MOVING.changed(centroids_per_label=3)
