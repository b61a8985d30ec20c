"""Views whose sides are no multiple of the network's stride: what is learned lies where inference sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.methods.inference import Axis
from labelmerge.methods.method import Learner, TrainingData, find_method
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs

from ..loading.toy_shards import Toy, toy_bank

TOYS = (
    Toy("streets", ("road", "sky", "car"), depth=True),
    Toy("parts", ("tree", "road"), kind="noisy_mask", depth=True),
    Toy("things", ("car", "cup"), kind="box"),
)
CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [3, 8, 29, 42, 713])
def test_maps_are_upsampled_to_where_inference_reads_them(size: int) -> None:
    model = build_model("tiny", 4)
    cells = -(-size // model.stride)
    ramp = torch.arange(cells, dtype=torch.float64).expand(1, 1, cells, cells)
    axis = Axis.of(size, size, 0, size, stride=model.stride, device=CPU)
    read = axis.before.double() + axis.share.double()
    upsampled = model.upsample(ramp, (size, size))[0, 0]
    assert upsampled.shape == (size, size)
    assert torch.allclose(upsampled, read.expand(size, size), atol=1e-6)
    assert model.over_whole_cells(torch.zeros(1, size, size)).shape == (1, model.stride * cells, model.stride * cells)


def _wider(batch: Batch, more: int) -> Batch:
    """The same views in a larger frame of nothing, at the right and at the bottom."""

    def padded(values: Tensor | None, value: int = 0) -> Tensor | None:
        return None if values is None else pad(values, (0, more, 0, more), value=value)

    images, masks = padded(batch.images), padded(batch.masks, IGNORE)
    assert images is not None and masks is not None
    others = tuple(_wider(view, more) for view in batch.others)
    return replace(batch, images=images, masks=masks, depths=padded(batch.depths), others=others)


@pytest.mark.parametrize("method", ["ssiw", "usss", "mdp", "depth"])
def test_a_frame_of_nothing_up_to_whole_cells_changes_no_loss(tmp_path: Path, method: str) -> None:
    for toy in TOYS:
        toy.write(tmp_path / "shards")
    toy_bank(TOYS).save(tmp_path / "bank")
    own: dict[str, Any] = {"depth": {"gradient_weight": 0.0, "depth_labels": "none"}, "mdp": {"mix": "none"}}
    own["usss"] = {"cross_weight": 0.0, "within_weight": 0.0}
    settings = {"method": method, "merge": "text", "batch_size": 6, "crop": 29, **own.get(method, {})}
    config = TrainConfig.from_dict({**settings, "scale_min": 1.0, "scale_max": 1.0, "colour": 0.0})
    found = find_method(method)
    inputs = read_inputs([tmp_path / "shards"], tmp_path / "bank", None, config, found, Ranks())
    torch.manual_seed(0)
    learner: Learner = found.build(config.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
    learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, Ranks(), CPU, 0, 0))
    for name, buffer in learner.named_buffers():
        if name.endswith("._mean"):
            buffer.zero_()  # black is what the network itself adds around an image then
    batch = inputs.mixture.batch(0)[0].to(CPU)
    found_losses = []
    for shown in (batch, _wider(batch, 3)):
        mixed = learner.mix(shown, torch.Generator().manual_seed(0))
        found_losses.append(learner(mixed).detach())
    assert found_losses[0].abs().sum() > 0
    assert torch.allclose(found_losses[0], found_losses[1], rtol=1e-5)
