"""Vectors that LMSeg learns before the texts of labels, in a tiny CLIP."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from labelmerge.bank.bank import Bank
from labelmerge.encoders.encoders import load_encoder
from labelmerge.encoders.prompted import PromptedTower, text_width
from labelmerge.errors import BankError, ConfigError, EncoderError, UsageError
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.prompts import LearnedPrompt
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views
from labelmerge.train.loop import train

from ..embed.conftest import clip_spec, clip_weights
from ..loading.toy_shards import Toy, toy_bank
from ..weights import weights
from .test_lmseg import config
from .things import ToyThings

__all__ = ["clip_spec", "clip_weights"]

IMAGE = np.random.default_rng(3).integers(0, 255, (24, 32, 3), dtype=np.uint8)
TOYS = (ToyThings(), Toy("streets", ("road", "sky", "bus")))


def open_tower(spec: str) -> tuple[PromptedTower, Any, Any]:
    """The tower, and the model and tokenizer that are in it."""
    encoder = load_encoder(spec, "cpu")
    return PromptedTower(spec, "cpu"), *encoder.parts()  # type: ignore[attr-defined]


def test_words_as_vectors_are_the_words(clip_spec: str) -> None:
    """With the vectors of "a photo of" as the prompt, a text has the vector of "a photo of" and the text."""
    tower, clip, tokenizer = open_tower(clip_spec)
    start = tokenizer(["a photo of"])[0]
    count = int(start.argmax()) - 1
    prompt = clip.token_embedding(start[1 : 1 + count]).detach()
    assert prompt.shape == (3, text_width(clip_spec))
    texts = ["road", "a very wide road with cars", "sky"]
    wanted = clip.encode_text(tokenizer([f"a photo of {text}" for text in texts]), normalize=True)
    assert torch.allclose(tower.encode(texts, prompt), wanted, atol=1e-5)
    alone = clip.encode_text(tokenizer(texts), normalize=True)
    assert torch.allclose(tower.encode(texts, prompt[:0]), alone, atol=1e-5)


def test_what_is_too_long_loses_its_end(clip_spec: str) -> None:
    tower, clip, tokenizer = open_tower(clip_spec)
    prompt = torch.randn(4, text_width(clip_spec), generator=torch.Generator().manual_seed(0))
    words = ["road"] * 200
    kept = words[: tokenizer.context_length - 4 - 2]
    both = tower.encode([" ".join(words), " ".join(kept), " ".join(kept[:-1])], prompt)
    assert torch.allclose(both[0], both[1], atol=1e-6) and not torch.allclose(both[1], both[2], atol=1e-4)
    with pytest.raises(UsageError, match="no room"):
        tower.encode(["road"], torch.zeros(tokenizer.context_length - 2, text_width(clip_spec)))


def test_the_prompt_alone_is_learned(clip_spec: str) -> None:
    tower, clip, _ = open_tower(clip_spec)
    prompt = torch.zeros(2, text_width(clip_spec), requires_grad=True)
    torch.autograd.backward(tower.encode(["road", "sky"], prompt)[:, 0].sum())
    assert prompt.grad is not None and prompt.grad.any()
    assert not any(parameter.requires_grad for parameter in tower._clip.parameters())
    with pytest.raises(UsageError, match="no text tower"):
        text_width("offline")


@pytest.fixture
def data(tmp_path: Path, clip_spec: str) -> tuple[Path, Path]:
    for toy in TOYS:
        toy.write(tmp_path / "shards")
    encoder = load_encoder(clip_spec, "cpu")
    bank = toy_bank(TOYS)
    made = replace(bank, vectors=encoder.encode(bank.texts), encoder=clip_spec, identity=encoder.identity)
    made.save(tmp_path / "bank")
    return tmp_path / "shards", tmp_path / "bank"


def test_a_run_learns_it_and_goes_on_exactly(data: tuple[Path, Path], tmp_path: Path, clip_spec: str) -> None:
    shards, bank = data
    settings = config(text_tower=clip_spec, prompt_vectors=2, ema=0.9)
    whole = train([shards], bank, tmp_path / "whole", config=settings, device="cpu")
    half = tmp_path / "half"
    shutil.copytree(whole.run, half)
    shutil.rmtree(half / "checkpoints" / "step-000004")
    resumed = train([shards], bank, half, config=settings, device="cpu")
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    first = safetensors.torch.load_file(half / "checkpoints/step-000002/model.safetensors")
    assert not torch.equal(first["prompt.context"], weights(whole)["prompt.context"])
    assert not any("tower" in key or "token" in key for key in first)
    # The vectors of the labels are those that the prompt of the checkpoint makes.
    model = load_trained(whole.run).learner
    assert isinstance(model, LmsegLearner) and model.prompt is not None
    texts = [Bank.load(bank).texts[row] for row in Bank.load(bank).positions(model.labels)]
    assert torch.allclose(model.prompt.vectors, model.prompt.encode(texts), atol=1e-6)


def test_what_is_too_long_beside_the_prompt_is_said(clip_spec: str, caplog: pytest.LogCaptureFixture) -> None:
    length = int(load_encoder(clip_spec, "cpu").max_tokens)
    fits, cut = (" ".join(["road"] * (length - 2 - own)) for own in (2, 1))
    prompt = LearnedPrompt(clip_spec, 2, [("a", 0), ("a", 1)], PromptedTower(clip_spec, "cpu").dim)
    prompt.begin(["road", fits])
    assert not caplog.messages
    prompt.begin([fits, cut])
    prompt.of_labels([("a", 0), None], ["road", cut])
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "1 text is too long beside the 2 learned vectors, and the text tower does not see the end"
    ] * 2


def test_pieces_are_the_whole(data: tuple[Path, Path], tmp_path: Path, clip_spec: str) -> None:
    shards, bank = data
    common = {"text_tower": clip_spec, "optimizer": "sgd", "lr": 1e-3, "batch_size": 6, "steps": 2}
    whole, pieces = (
        train([shards], bank, tmp_path / f"in{n}", config=config(**common, accumulate=n), device="cpu") for n in (1, 3)
    )
    for key, value in weights(whole).items():
        assert torch.allclose(value.float(), weights(pieces)[key].float(), atol=2e-5), key


def test_the_tower_is_needed_for_new_words_alone(
    data: tuple[Path, Path], tmp_path: Path, clip_weights: Path, clip_spec: str
) -> None:
    shards, bank = data
    here = tmp_path / "tiny.pt"
    shutil.copy(clip_weights, here)
    settings = config(steps=1, text_tower=f"open_clip:tiny-clip/{here}")
    run = train([shards], bank, tmp_path / "run", config=settings, device="cpu").run
    own = LabelList.of(TOYS[0].space, Bank.load(bank))
    text = "a red bus"
    new = replace(own, names=("x",), texts=(text,), keys=(None,), vectors=own.vectors[:1])
    joint = replace(new, several=(own.vectors[:2],), texts=("a\nb",))
    with_tower = load_trained(run)
    classes = with_tower.predictor(new, Views(0)).classes(IMAGE)
    assert classes.shape == (24, 32)
    found = with_tower.predictor(joint, Views(0))
    assert found._labels.vectors.shape[0] == 2  # type: ignore[attr-defined]
    before = with_tower.predictor(own, Views(0)).classes(IMAGE)
    here.unlink()
    without = load_trained(run)
    assert np.array_equal(without.predictor(own, Views(0)).classes(IMAGE), before)
    with pytest.raises(EncoderError, match="labels that were not trained need"):
        without.predictor(new, Views(0))


def test_another_tower_than_the_banks_is_refused(data: tuple[Path, Path], tmp_path: Path, clip_spec: str) -> None:
    shards, _ = data
    toy_bank(TOYS).save(tmp_path / "other")
    with pytest.raises(BankError, match="a prompt is to be learned in"):
        train([shards], tmp_path / "other", tmp_path / "run", config=config(text_tower=clip_spec), device="cpu")
    with pytest.raises(ConfigError, match="heads knows no texts"):
        LmsegSettings(text_tower=clip_spec, classifier="heads")
