"""The loss kernels compiled for Hopper, for which no GPU is needed, and what their machine code is made of.

    python tests/losses/hopper.py

prints for each kernel and kind of table (docs/losses.md): registers a thread, bytes spilled a thread, and the
instructions of its innermost loop that has most of them, by kind. A loop of `forward` makes 32 logits of a thread, one
of `backward` 128, with a table 64, in one of two ways (docs/losses.md).
"""

from __future__ import annotations

import collections
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = [(name, kind) for name in ("forward", "backward") for kind in ("none", "sets", "soft")]
KINDS += [("weigh", "none"), ("products", "none"), ("products_backward", "none")]


def compiled(name: str, kind: str, **given: Any) -> Any:
    """One kernel, down to machine code, as Triton gives it.

    Args:
        kind: of the table: "none", "sets" or "soft".
        given: arguments that are known when it is compiled, in place of the usual ones.
    """
    triton = importlib.import_module("triton")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    from labelmerge.losses import kernels, kernels_backward, kernels_products

    (kernel,) = (getattr(each, name) for each in (kernels, kernels_backward, kernels_products) if hasattr(each, name))
    types = dict.fromkeys(("v", "onto", "out"), "*bf16") | dict.fromkeys(("targets",), "*i64")
    types |= dict.fromkeys(("starts_y", "starts_x", "counts"), "*i32") | {
        "allowed": "*i1",
        "columns": "*i64",
        "fours": "*i64",
        "owns": "*i64",
        "chosen": "*i32",
    }
    types |= dict.fromkeys(
        ("low", "products", "tau", "reach", "shares_y", "shares_x", "losses", "scales", "halves", "lses", "surpluses")
        + ("strengths", "grad_products", "bias", "wanted", "pulls", "others", "least", "grads", "grad_square", "leasts")
        + ("sums",), "*fp32",
    ) | {"grad_low": "*bf16"}  # fmt: skip
    constants: dict[str, Any] = {
        "HAS_ALLOWED": True,
        "EVERYWHERE": kind != "sets",
        "ROWS": 16,
        "PARTS_X": 1,
        "PIXELS_X": 4,
        "LANES": 32,
    }
    sizes = {
        "forward": {"LABELS": 4, "PARTS_Y": 2, "PIXELS_Y": 2},
        "backward": {"LABELS": 8 if kind == "none" else 4, "PARTS_Y": 1, "PIXELS_Y": 4},
        "weigh": {"PARTS_Y": 1, "PIXELS_Y": 4},
    }
    constants |= sizes.get(name, {})
    constants |= {"CHANNELS": 8, "CELLS": 128, "stride_x": 1, "HAS_TABLE": kind != "none"}
    absent = {"none": ("bias", "wanted", "columns", "counts", "fours", "pulls"), "sets": ("wanted",), "soft": ()}
    constants |= dict.fromkeys(absent[kind])
    constants |= given
    names = kernel.arg_names
    constants = {each: value for each, value in constants.items() if each in names}
    if constants.get("HAS_ALLOWED") is False:
        constants["allowed"] = None
    used = {(names.index(each),): value for each, value in constants.items()}
    signature = {each: "constexpr" if each in constants else types.get(each, "i32") for each in names}
    # As the just-in-time compiler finds them: memory of torch's allocator, and 512 channels.
    even = {"channels", "stride_image", "stride_channel", "stride_y", "stride_x"}
    even |= {"onto_image", "onto_channel", "onto_y", "onto_x"}
    aligned = {
        (names.index(each),): [["tt.divisibility", 16]]
        for each in names
        if each not in constants and (each in even or signature[each].startswith("*"))
    }
    source = triton.compiler.ASTSource(kernel, signature, used, aligned)
    warps = 1 if "LANES" in names else 4
    return triton.compile(source, target=target, options={"num_warps": warps, "enable_fp_fusion": True})


def counted(cubin: bytes) -> dict[str, Any]:
    """Registers, bytes of the stack that spilling needs, and the instructions of the longest innermost loop."""
    tools = Path(str(importlib.import_module("triton").__file__)).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tools / "cuobjdump", "-res-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
        code = subprocess.run(
            [tools / "cuobjdump", "-sass", file.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)\s*(.*?);", code, re.M)
    places = [int(place, 16) for place, _, _ in lines]
    loops = []
    for at, (_, operation, operands) in enumerate(lines):
        to = re.search(r"0x([0-9a-f]+)\s*$", operands)
        if operation.startswith("BRA") and to and int(to[1], 16) < places[at]:
            loops.append((places.index(int(to[1], 16)), at + 1))
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    first, last = max(inner, key=lambda loop: loop[1] - loop[0], default=(0, len(lines)))
    kinds = collections.Counter(operation.split(".")[0] for _, operation, _ in lines[first:last])
    return {
        "registers": int(found[1]),
        "stack": int(found[2]),
        "all": len(lines),
        "loops": [b - a for a, b in loops],
        "loop": last - first,
        **dict(kinds.most_common()),
    }


def main() -> None:
    for name, kind in KINDS:
        if len(sys.argv) > 1 and sys.argv[1] != name:
            continue
        print(name, kind, counted(compiled(name, kind, HAS_ALLOWED=False).asm["cubin"]), flush=True)


if __name__ == "__main__":
    main()
