"""What a GPU would be asked to do in a forward pass, counted without one: kernels, casts, copies, FLOPs, bytes kept.

    python tests/benchmarks/count_step.py [--size 5] [--crop 640] [--batch 16]

SegFormer as `labelmerge` (without its kernel of Mix-FFN), `smp` and `transformers` have it, in training under bfloat16
autocast. The tensors are torch's fake ones of a CUDA device: every operator is called and none computes. (The backward
pass wants a driver. What is cast or copied forward is so again backward.)
An operator that makes a tensor counts as one kernel (views are none, and a library may launch several); a *cast* copies
to another dtype, a *copy* to another layout. Bytes are those that all operators, casts and copies read and write.
FLOPs are torch's count of the forward pass. The last column is the least time of a step on an H200, in ms: three times
the forward pass, each number read and written once by each operator at 4.26 TB/s (measured), and the FLOPs at 989
TFLOP/s (the data sheet's), one after the other.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from labelmerge.model import backbones

_H200_GB, _H200_GFLOP = 4260.0, 989_000.0  # a second
_VIEWS = {"detach", "alias", "lift_fresh", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty"}


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """Counts operators by name, and of casts and copies the bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.kernels: collections.Counter[str] = collections.Counter()
        self.bytes: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(
        self, call: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = call(*args, **(kwargs or {}))
        name = call._schema.name.removeprefix("aten::")
        if call.is_view or name in _VIEWS or name.startswith("prim::"):
            return out
        if name == "_foreach_copy_":  # of several tensors in one launch
            name = "cast"
            self.bytes[name] += sum(each.nbytes for tensors in args[:2] for each in tensors)
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if name in ("_to_copy", "copy_", "clone") and isinstance(out, Tensor) and source is not None:
            other = args[1] if name == "copy_" else out
            name = "cast" if source.dtype != other.dtype else "copy"
            self.bytes[name] += source.numel() * (source.element_size() + other.element_size())
        self.kernels[name] += 1
        self.bytes["all"] += sum(each.nbytes for each in tree_leaves((args, out)) if isinstance(each, Tensor))
        return out


def theirs(kind: str, size: int, channels: int = 512) -> nn.Module:
    """The network with so many channels at a quarter of the images' size, and random weights."""
    if kind == "labelmerge":
        from labelmerge.model.backbones import SegFormer

        return SegFormer(size, channels)
    width = 256 if size < 2 else 768
    if kind == "smp":
        import segmentation_models_pytorch as smp

        whole: nn.Module = smp.Segformer(
            f"mit_b{size}", encoder_weights=None, decoder_segmentation_channels=width, classes=channels, upsampling=1
        )
        return whole
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    depths = ([2, 2, 2, 2], [2, 2, 2, 2], [3, 4, 6, 3], [3, 4, 18, 3], [3, 8, 27, 3], [3, 6, 40, 3])[size]
    sizes = [32, 64, 160, 256] if size == 0 else [64, 128, 320, 512]
    config = SegformerConfig(depths=depths, hidden_sizes=sizes, decoder_hidden_size=width, num_labels=channels)
    return Logits(SegformerForSemanticSegmentation(config))


def flash(
    q: Tensor, k: Tensor, v: Tensor, *_: Any, dropout_p: float = 0.0, scale: float | None = None, **__: Any
) -> Tensor:
    """Scaled dot-product attention as a GPU has it; without one torch would take it apart."""
    kind = torch.bfloat16
    out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        q.to(kind), k.to(kind), v.to(kind), dropout_p, scale=scale
    )[0]
    return out


class Logits(nn.Module):
    """A network of transformers that returns the tensor alone."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.whole(images).logits
        return logits


def count(kind: str, size: int, crop: int, batch: int) -> dict[str, float]:
    """The figures of one row."""
    model = theirs(kind, size).train()
    F.scaled_dot_product_attention = flash  # type: ignore[assignment]
    backbones.suits = lambda x: False  # type: ignore[attr-defined]  # a kernel that fake tensors can't pass through
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cuda")
        images = torch.empty(batch, 3, crop, crop, device="cuda")
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            return tensor

        counter = Counter()
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with FlopCounterMode(display=False) as flops:
                torch.set_autocast_enabled("cuda", True)
                try:
                    model(images)
                finally:
                    torch.set_autocast_enabled("cuda", False)
                    torch.clear_autocast_cache()
    return {
        "kernels": sum(counter.kernels.values()),
        "casts": counter.kernels["cast"],
        "cast_gb": counter.bytes["cast"] / 1e9,
        "all_gb": counter.bytes["all"] / 1e9,
        "copies": counter.kernels["copy"],
        "copy_gb": counter.bytes["copy"] / 1e9,
        "kept_gb": sum(size for storage, size in kept.items() if storage not in weights) / 1e9,
        "gflop": flops.get_total_flops() / batch / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5, help="0 to 5 of B0 to B5")
    parser.add_argument("--crop", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=["smp", "transformers", "labelmerge"])
    options = parser.parse_args()
    print(f"SegFormer-B{options.size}, {options.batch} crops of {options.crop}\n")
    print("| | kernels | GB | casts | GB | copies | GB | kept for the backward pass, GB | GFLOP an image | least ms |")
    print("|---" * 10 + "|")
    for kind in options.kinds:
        found = count(kind, options.size, options.crop, options.batch)
        least = 3 * (found["all_gb"] / _H200_GB + options.batch * found["gflop"] / _H200_GFLOP) * 1e3
        cells = [
            f"{found['kernels']:.0f}",
            f"{found['all_gb']:.0f}",
            f"{found['casts']:.0f}",
            f"{found['cast_gb']:.1f}",
        ]
        cells += [f"{found['copies']:.0f}", f"{found['copy_gb']:.1f}", f"{found['kept_gb']:.1f}"]
        cells += [f"{found['gflop']:.0f}", f"{least:.0f}"]
        print("| " + " | ".join([kind, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
