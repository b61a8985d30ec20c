"""Texts per second: `TextEncoder.encode` against the model itself, called with batches that were tokenised beforehand.

    python tests/benchmarks/bench_embed.py                       # offline, and a ViT-B/32 with random weights
    python tests/benchmarks/bench_embed.py --device cuda --texts 4096

Both do the same batches in the same order on the same device and bring unit vectors to the CPU. The two take turns,
`--repeat` times; the ratio is of the medians, so that what else the machine does hits both. `encode` also makes the
tokens: on a GPU that goes on while the GPU works, on a CPU it takes its turn.

Text is what ships: names and descriptions of all datasets, in the order of the bank.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelmerge.catalog import load_descriptions
from labelmerge.device import choose_device
from labelmerge.embed.datasets import find_datasets
from labelmerge.encoders import shared
from labelmerge.encoders.encoders import load_encoder
from labelmerge.names import sentence

Encode = Callable[[], np.ndarray[Any, Any]]


def texts_that_ship(count: int) -> list[str]:
    found = dict.fromkeys(
        sentence(row.name, row.description) for recipe in find_datasets(["all"]) for row in load_descriptions(recipe)
    )
    return list(found)[:count]


def in_order(texts: list[str], size: int) -> list[list[str]]:
    """The batches that `encode` makes."""
    ordered = sorted(texts, key=lambda text: (len(text), text))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def tokenised(encoder: Any, batch: list[str], device: torch.device) -> Any:
    """What the model itself takes: token ids, or the features of sentence-transformers."""
    if encoder.spec != "offline":
        return encoder._tokenizer(batch).to(device)
    tokenise = getattr(encoder._model, "preprocess", encoder._model.tokenize)  # its name since version 6
    features = tokenise(batch).items()
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in features}


def directly(encoder: Any, batches: list[Any]) -> Encode:
    """The model, one batch after the other."""

    def model(batch: Any) -> torch.Tensor:
        found: torch.Tensor = (
            encoder._model(dict(batch))["sentence_embedding"]
            if encoder.spec == "offline"
            else encoder._model.encode_text(batch)
        )
        return found

    def run() -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            vectors = torch.cat([model(batch) for batch in batches])
            unit: np.ndarray[Any, Any] = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
        return unit

    return run


def take_turns(ours: Encode, theirs: Encode, texts: list[str], repeat: int) -> tuple[float, float]:
    """Median seconds of each; both are warmed up, and must agree."""
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row]))
    np.testing.assert_allclose(ours()[order], theirs(), atol=1e-5)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for which, encode in enumerate((ours, theirs)):
            start = time.perf_counter()
            encode()
            seconds[which].append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--texts", type=int, help="how many; default 512 for offline, 64 for CLIP, all on a GPU")
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with random weights; default ViT-B-32")
    parser.add_argument("--repeat", type=int, default=5, help="default 5")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    size = shared.CPU_BATCH if device.type == "cpu" else shared.GPU_BATCH
    print(f"{device}, {options.threads} threads, batches of {size}")
    print(f"{'encoder':24}{'texts':>7}{'encode/s':>10}{'direct/s':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("offline", f"open_clip:{options.model}"):
            few = (512 if name == "offline" else 64) if device.type == "cpu" else 10**6
            texts = texts_that_ship(options.texts or few)
            if name == "offline":
                spec = name
            else:
                import open_clip

                weights = Path(folder) / "weights.pt"
                torch.manual_seed(0)
                torch.save(open_clip.create_model(options.model).state_dict(), weights)
                spec = f"{name}/{weights}"
            encoder: Any = load_encoder(spec, options.device)
            tokens = [tokenised(encoder, batch, device) for batch in in_order(texts, size)]
            ours, direct = take_turns(partial(encoder.encode, texts), directly(encoder, tokens), texts, options.repeat)
            rates = (len(texts) / ours, len(texts) / direct)
            print(f"{name:24}{len(texts):7}{rates[0]:10.0f}{rates[1]:10.0f}{rates[0] / rates[1]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
