"""The fused kernel: in Triton's interpreter against the literal loss, compiled for Hopper, and when it is chosen.

It is run on a GPU by the last test alone, where there is one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from labelmerge.losses import pixel, pixel_cosine_loss

from .hopper import KINDS, compiled, counted
from .interpreted import CASES
from .reference import random_table


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What interpreted.py prints. Kernels are interpreted or not from their import on, hence a process."""
    pytest.importorskip("triton", reason="the fused kernel needs Triton, which is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpreted.py"))],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, float]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", CASES)
def test_equals_the_literal_loss(interpreted: dict[str, dict[str, float]], name: str) -> None:
    found, case = interpreted[name], CASES[name]
    # Labels are two bfloat16 parts, 2⁻¹⁷ off; gradients are rounded to bfloat16, 2⁻⁹ off, a few times.
    half = case.dtype == torch.bfloat16
    assert found["losses"] < (1e-4 if half else 2e-5)
    assert found.get("trimmed", 0) < (1e-4 if half else 2e-5)
    assert found["v"] < (1e-2 if half else 1e-3 if case.dtype == torch.float16 else 2e-5)
    assert found["labels"] < (1e-2 if half else 2e-5)
    assert found["tau"] < (1e-4 if half else 2e-5)


@pytest.mark.parametrize("name", ["odd targets", "odd targets, sets", "odd targets, soft"])
def test_targets_that_cannot_be(interpreted: dict[str, dict[str, float]], name: str) -> None:
    found = interpreted[name]
    assert found["not allowed"] == math.inf and math.isnan(found["no class"])
    assert math.isfinite(found["others"]) and math.isfinite(found["gradient"])


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_compiles_for_hopper_without_atomics(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole compiler, down to machine code; a GPU is not needed. The interpreter accepts what it refuses.

    What a thread spills goes to memory and back: kernels that spilled kilobytes took 124 ms where 7 do.
    """
    pytest.importorskip("triton", minversion="3.4", reason="the fused kernel needs Triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = compiled(name, kind)
    assert done.asm["cubin"]
    assert not re.search(r"\b(atom|red)\.", done.asm["ptx"]), "the same input must give the same bits"
    assert counted(done.asm["cubin"])["stack"] <= (80 if (name, kind) == ("backward", "none") else 0)
    if name in ("forward", "backward"):  # a table's rows, and the maps of pixels
        assert "ld.global.v4" in done.asm["ptx"] or (name, kind) == ("forward", "none")


def arguments(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return torch.ones(1, 4, 2, 2, dtype=dtype), torch.eye(4), torch.zeros(1, 8, 8, dtype=torch.long), 0.1


def test_a_cpu_takes_the_chunked_one_and_says_why_it_cannot_do_otherwise() -> None:
    pytest.importorskip("triton", reason="the fused kernel needs Triton, which is not installed")
    auto, chunked = (pixel_cosine_loss(*arguments(), kernel=kernel) for kernel in ("auto", "chunked"))
    assert torch.equal(auto, chunked)
    with pytest.raises(ValueError, match="needs a CUDA device, and v is on cpu"):
        pixel_cosine_loss(*arguments(), kernel="fused")
    with pytest.raises(ValueError, match="float64 needs kernel='chunked'"):
        pixel_cosine_loss(*arguments(torch.float64), kernel="fused")
    with pytest.raises(ValueError, match="kernel must be auto, chunked or fused, not quick"):
        pixel_cosine_loss(*arguments(), kernel="quick")  # type: ignore[arg-type]


def test_what_does_not_compile_is_one_warning_and_then_the_chunked_one(caplog: pytest.LogCaptureFixture) -> None:
    """A CPU stands for a GPU on which the kernel fails: here it always does."""
    pixel._fused_works.cache_clear()
    with caplog.at_level(logging.WARNING, logger="labelmerge"):
        for _ in range(3):
            assert not pixel._fused_works(torch.device("cpu"), torch.float32, "none")
    pixel._fused_works.cache_clear()
    (record,) = caplog.records
    assert "does not work on cpu (ValueError" in record.getMessage() and "chunked" in record.getMessage()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the kernel is not run, only interpreted")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("present", "kind"),
    [(present, kind) for present in ("none", "allowed") for kind in ("none", "sets", "soft")]
    + [("competing", "sets"), ("competing", "soft")],
)
def test_agrees_with_the_chunked_one_on_the_gpu(
    dtype: torch.dtype, present: pixel.Present, kind: pixel.TableKind
) -> None:
    assert pixel._fused_works(torch.device("cuda", 0), dtype, present, kind)
    table = None if kind == "none" else random_table(101, 101, soft=kind == "soft", seed=0).to("cuda")
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, 64, 45, 37, generator=generator).to("cuda", dtype).requires_grad_()
    labels = F.normalize(torch.randn(101, 64, generator=generator), dim=1).cuda().requires_grad_()
    targets = torch.randint(101, (3, 179, 149), generator=generator).cuda()
    targets[torch.rand(targets.shape, generator=generator).cuda() < 0.2] = 255
    tau = torch.tensor(0.07, device="cuda", requires_grad=True)
    found = []
    for kernel in ("chunked", "fused", "fused"):
        loss = pixel_cosine_loss(v, labels, targets, tau, table=table, kernel=kernel)
        found.append((loss, *torch.autograd.grad(loss, (v, labels, tau))))
    for chunked, fused, again in zip(*found, strict=True):
        error = (fused.double() - chunked.double()).norm() / chunked.double().norm()
        assert error < (1e-2 if dtype == torch.bfloat16 else 1e-3)
        assert torch.equal(fused, again)
