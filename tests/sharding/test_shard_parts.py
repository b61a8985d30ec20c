"""Runs in parts, on a cluster, killed at any moment: the folder is always that of one quiet run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labelmerge.errors import LabelmergeError, OutputError, ShardError, UsageError
from labelmerge.files import locked
from labelmerge.inspect.verify import verify
from labelmerge.sharding.finish import finish
from labelmerge.sharding.shard import check, shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

Run = Callable[..., Any]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_parts_make_the_same_folder_as_one_run(own: Own, tmp_path: Path) -> None:
    own.pairs(11)
    own.mask("masks/train/004.png", size=(3, 3))
    (own.root / "masks/train/007.png").unlink()
    whole = shard(own.recipe, own.root, "train", tmp_path / "whole", samples_per_shard=2)
    written = 0
    for number in (3, 1, 2):
        report = shard(own.recipe, own.root, "train", tmp_path / "parts", samples_per_shard=2, part=(number, 3))
        assert report.part == (number, 3) and report.folder is not None
        assert not (report.folder / "manifest.json").exists()
        written += report.written
    assert written == whole.written
    again = shard(own.recipe, own.root, "train", tmp_path / "parts", samples_per_shard=2, part=(1, 3))
    assert again.kept == 2
    finished = finish(tmp_path / "parts/my_streets/train")
    assert (finished.written, finished.skipped) == (whole.written, whole.skipped)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert finish(tmp_path / "parts/my_streets/train").written == whole.written  # once more does no harm
    assert verify([tmp_path]).problems == ()


def test_an_unfinished_part_is_named_and_a_whole_run_completes_it(own: Own, tmp_path: Path) -> None:
    own.pairs(6)
    folder = tmp_path / "my_streets/train"
    with pytest.raises(ShardError, match="nothing was begun here"):
        finish(folder)
    shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2, part=(1, 2))
    with pytest.raises(ShardError, match=r"1 of 3 shards are not done yet \(000001\)"):
        finish(folder)
    assert shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2).kept == 2
    with pytest.raises(ShardError, match="samples_per_shard was 2, now 3"):
        shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=3, part=(1, 2))


def test_more_parts_than_shards(own: Own, tmp_path: Path) -> None:
    own.pairs(2)
    for number in range(1, 4):
        shard(own.recipe, own.root, "train", tmp_path, part=(number, 3))
    assert finish(tmp_path / "my_streets/train").written == 2


def test_a_damaged_record_of_a_run_is_one_clear_error(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2, part=(1, 2))
    folder = tmp_path / "my_streets/train"
    for name, text in (("000000.json", "{}"), ("run.json", "["), ("run.json", "{}")):
        (folder / ".unfinished" / name).write_text(text)
        with pytest.raises(ShardError, match="is damaged"):
            finish(folder)


def test_two_processes_do_not_write_the_same_folder(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    work = tmp_path / "my_streets/.train-work"
    work.mkdir(parents=True)
    with locked(work / "lock", "the train split"), pytest.raises(OutputError, match="another process is writing"):
        shard(own.recipe, own.root, "train", tmp_path)
    with locked(work / "lock", "the train split", shared=True):
        with pytest.raises(OutputError, match="another process is writing the train split"):
            shard(own.recipe, own.root, "train", tmp_path)
        shard(own.recipe, own.root, "train", tmp_path, part=(1, 2), samples_per_shard=2)
    shard(own.recipe, own.root, "train", tmp_path, part=(2, 2), samples_per_shard=2)
    assert finish(tmp_path / "my_streets/train").written == 4
    assert [path.name for path in (tmp_path / "my_streets").iterdir()] == ["train"]


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (-1, -1)])
def test_a_part_that_is_none(own: Own, tmp_path: Path, part: tuple[int, int]) -> None:
    own.pairs(1)
    with pytest.raises(UsageError, match="it must be 1/N to N/N"):
        shard(own.recipe, own.root, "train", tmp_path, part=part)


def test_parts_on_the_command_line(own: Own, tmp_path: Path, run: Run) -> None:
    own.pairs(5)
    words = ["shard", own.recipe_file, "--root", own.root, "--split", "train", "--out", tmp_path]
    words += ["--samples-per-shard", "2"]
    result = run(*words, "--part", "1/2")
    assert result.exit_code == 0 and "labelmerge verify --finish" in result.output
    assert run(*words, "--part", "2").exit_code == 2
    assert run(*words, "--part", "2/2").exit_code == 0
    assert finish(tmp_path / "my_streets/train").written == 5


def test_a_check_of_all_splits(own: Own, tmp_path: Path, run: Run) -> None:
    own.pairs(3)
    own.pairs(2, "val")
    result = run("shard", own.recipe_file, "--root", own.root, "--check")
    assert result.exit_code == 0
    assert "Would write 3 of 3 images of my_streets train" in result.output
    assert "Would write 2 of 2 images of my_streets val" in result.output
    assert "classes: 3 of 3 occur" in result.output
    result = run("shard", own.recipe_file, "--root", own.root, "--check", "--part", "1/2")
    assert result.exit_code == 2 and "--part means nothing with --check" in result.stderr
    words = ("shard", own.recipe_file, "--root", own.root, "--split", "train", "--out", own.folder / "out")
    result = run(*words, "--device", "cpu")
    assert result.exit_code == 2 and "--device is for a box teacher" in result.stderr
    result = run("shard", own.recipe_file, "--root", own.root, "--out", tmp_path)
    assert result.exit_code == 2 and "--split is missing" in result.stderr


def test_sizes_and_duplicates_are_counted(own: Own, tmp_path: Path) -> None:
    own.pairs(3)
    own.image("images/train/large.jpg", size=(20, 14))
    own.mask("masks/train/large.png", size=(20, 14))
    (own.root / "images/train/002.jpg").write_bytes((own.root / "images/train/000.jpg").read_bytes())
    report = shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    assert report.folder is not None and report.notes == {"duplicate_images": 1}
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert manifest["sizes"] == {"pixels": 3 * 192 + 280, "min": [12, 14], "max": [20, 16]}
    assert check(own.recipe, own.root, "train").notes == {"duplicate_images": 1}


# --- killed -----------------------------------------------------------------------------------------------------------

KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from labelmerge.catalog import load_recipe
from labelmerge.sharding.shard import shard

recipe, root, out, wanted = load_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
chance = random.Random(7)
killed = runs = 0
while killed < wanted:
    child = os.fork()
    if child == 0:
        os.close(2)
        shard(recipe, root, "train", out / str(runs), samples_per_shard=2, part=(1, 1))
        os._exit(0)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        killed += 1
    elif os.WEXITSTATUS(status) == 0:
        runs += 1
    else:
        sys.exit(f"a run failed after {killed} kills")
shard(recipe, root, "train", out / str(runs), samples_per_shard=2)
print(runs + 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_sixty_kills_lose_and_double_nothing(own: Own, tmp_path: Path) -> None:
    for number in range(24):
        own.image(f"images/train/{number:03d}.jpg", size=(120, 160))
        own.mask(f"masks/train/{number:03d}.png", size=(120, 160))
    words = [str(own.recipe_file), str(own.root), str(tmp_path / "killed"), "60"]
    process = subprocess.run([sys.executable, "-c", KILLER, *words], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    shard(own.recipe, own.root, "train", tmp_path / "quiet", samples_per_shard=2)
    quiet = content(tmp_path / "quiet")
    for run in range(int(process.stdout)):
        assert content(tmp_path / "killed" / str(run)) == quiet


def test_killed_workers_are_one_clear_error(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.pairs(4)
    from labelmerge.sharding import executors

    monkeypatch.setattr(executors, "_start_worker", _die)
    with pytest.raises(LabelmergeError, match="a worker process died"):
        shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=1, workers=2)
    monkeypatch.undo()
    assert shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=1).written == 4


def _die(*_: object) -> None:
    os._exit(9)


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_makes_the_same_bytes(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    own.pairs(7)
    own.mask("masks/train/004.png", size=(3, 3))
    options = {"samples_per_shard": 2}
    local = shard(own.recipe, own.root, "train", tmp_path / "local", **options)  # type: ignore[arg-type]
    report = shard(own.recipe, own.root, "train", tmp_path / "ray", workers=2, executor="ray", **options)  # type: ignore[arg-type]
    assert (report.written, report.skipped) == (local.written, local.skipped)
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_a_cluster_that_is_not_there(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.pairs(1)
    with pytest.raises(UsageError, match="unknown executor 'rey'. Did you mean ray"):
        shard(own.recipe, own.root, "train", tmp_path, executor="rey")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs Ray"):
        shard(own.recipe, own.root, "train", tmp_path, executor="ray")
