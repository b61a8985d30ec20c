"""Mix-FFN's convolution with its GELU: interpreted, compiled for Hopper, and on a GPU where there is one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from labelmerge.model import depthwise

from ..losses.hopper import counted

ROOT = Path(__file__).resolve().parents[2]


def test_equals_torchs_own(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="the kernel needs Triton, which is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("depthwise.py"))],
        env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for errors in json.loads(done.stdout).values():
        assert max(errors) < 1e-6


@pytest.mark.parametrize(("name", "warps"), [("convolve", 4), ("backward", 8)])
def test_compiles_for_hopper_without_spilling(
    name: str, warps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton", minversion="3.4", reason="the kernel needs Triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(importlib.import_module("labelmerge.model.depthwise_kernels"), name)
    constants: dict[str, Any] = dict(depthwise._TILE) | ({"HAS_GELU": True} if name == "convolve" else {})
    types = dict.fromkeys(("x", "out", "grad", "before"), "*bf16") | dict.fromkeys(("weight", "bias", "sums"), "*fp32")
    names = kernel.arg_names
    signature = {each: "constexpr" if each in constants else types.get(each, "i32") for each in names}
    aligned = {(names.index(each),): [["tt.divisibility", 16]] for each in names if each in types or each == "channels"}
    given = {(names.index(each),): value for each, value in constants.items()}
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    source = triton.compiler.ASTSource(kernel, signature, given, aligned)
    done = triton.compile(source, target=target, options={"num_warps": warps})
    assert counted(done.asm["cubin"])["stack"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the kernel is not run, only interpreted")
@pytest.mark.parametrize("size", [(2, 40, 40, 1280), (1, 21, 13, 64), (2, 20, 20, 2048)])
def test_agrees_with_torchs_own_on_the_gpu(size: tuple[int, int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (size, (size[3], 1, 3, 3), (size[3],))
    given = [torch.randn(*shape, generator=generator).cuda() for shape in shapes]
    x = given[0].bfloat16().requires_grad_()
    assert depthwise.suits(x)
    weight, bias = (each.requires_grad_() for each in given[1:])
    ours, again = (depthwise.depthwise_gelu(x, weight, bias) for _ in range(2))
    exact = F.gelu(F.conv2d(x.float().permute(0, 3, 1, 2), weight, bias, padding=1, groups=size[3]))
    upstream = torch.randn(*size, generator=generator).cuda()
    found = [
        [out.float(), *torch.autograd.grad((out.float() * upstream).sum(), (x, weight, bias))]
        for out in (ours, again, exact.permute(0, 2, 3, 1))
    ]
    for first, second, wanted in zip(*found, strict=True):
        assert torch.equal(first, second)
        assert (first.double() - wanted.double()).norm() < 1e-2 * wanted.double().norm()
