"""What MDP remembers and mixes in two processes, connected as torchrun connects them, against one process."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import torch

from ..train.test_train_ranks import two_processes
from .test_mdp import CONFIG
from .test_usss import two

__all__ = ["two"]  # a fixture


def remember(shards: str, bank: str, out: str, words: str) -> None:
    """What a learner makes of the first steps, into the file OUT-RANK. Its source runs in other processes, too."""
    import json
    from pathlib import Path

    import torch

    from labelmerge.methods.mdp.learner import MDPLearner
    from labelmerge.methods.method import TrainingData, find_method
    from labelmerge.methods.mixing import of_all_processes
    from labelmerge.model.build import build_model
    from labelmerge.train.config import TrainConfig
    from labelmerge.train.inputs import read_inputs
    from labelmerge.train.processes import training_ranks

    torch.set_num_threads(1)
    config, mdp, steps = TrainConfig.from_dict(json.loads(words)), find_method("mdp"), []
    with training_ranks("cpu") as (ranks, device):
        inputs = read_inputs([Path(shards)], Path(bank), "train", config, mdp, ranks)
        torch.manual_seed(0)
        learner = mdp.build(config.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
        assert isinstance(learner, MDPLearner)
        learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, ranks, device, 0, 0))
        for step in range(config.steps):
            batch = inputs.mixture.batch(step)[0].to(device)
            query = learner.mix(batch, torch.Generator().manual_seed(step))
            steps.append(
                {
                    "places": batch.places,
                    "views": [(view.images, view.masks, view.shares) for view in (query, *query.others)],
                    "ring": (learner.memory.clone(), learner.prototypes[0]),
                    "images": learner.images.clone(),
                }
            )
        order = of_all_processes(ranks, torch.tensor([[ranks.rank, 0], [ranks.rank, 1]]))[0].tolist()
        torch.save((steps, order), f"{out}-{ranks.rank}-{ranks.world}")


_RUN = f"from __future__ import annotations\nimport sys\n{inspect.getsource(remember)}\nremember(*sys.argv[1:])"


def test_ring_prototypes_and_mixed_views_are_those_of_one_process(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Four steps through a ring of three batches, every sample mixed with one of the other dataset."""
    words = (str(two[0]), str(two[1]), str(tmp_path / "steps"), json.dumps(CONFIG.changed(mix_share=1.0).to_dict()))
    for process in two_processes(_RUN, *words):
        assert process.returncode == 0, process.stderr
    remember(*words)
    (alone, _), (first, order), (second, other_order) = (
        torch.load(tmp_path / f"steps-{name}") for name in ("0-1", "0-2", "1-2")
    )
    assert order == other_order == [[0, 0], [0, 1], [1, 0], [1, 1]], "rows lie in the order of ranks"
    for one, *parts in zip(alone, first, second, strict=True):
        places = [place for part in parts for place in part["places"]]
        assert sorted(places) == one["places"] == [0, 1, 2, 3] and len(parts[0]["places"]) == 2
        for whole, *halves in zip(one["views"], *(part["views"] for part in parts), strict=True):
            for kind, tensor in enumerate(whole):
                assert torch.equal(torch.cat([half[kind] for half in halves]), tensor[places])
        for part in parts:
            assert torch.equal(part["images"], one["images"])
            for mine, zeroth, expected in zip(part["ring"], parts[0]["ring"], one["ring"], strict=True):
                assert torch.equal(mine, zeroth), "both processes hold the same"
                assert torch.allclose(mine, expected, atol=1e-6)
    assert alone[-1]["images"].sum(1).all() and any((step["views"][0][2] < 1).any() for step in alone)
