"""The command `labelmerge`: finds a verb's file when it is asked for, and turns library errors into one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from typing import Any

import click

from labelmerge import __version__
from labelmerge.errors import LabelmergeError

from .options import close_bars

# In the order of the pipeline. The help line stands here so that `labelmerge --help` imports no command.
COMMANDS = {
    "ls": "Show the known datasets: type, classes, layout expected on disk.",
    "describe": "Write what the labels of a dataset mean.",
    "embed": "Turn labels and descriptions into a versioned embedding bank.",
    "bank": "Show what a bank holds and what changed; export, import, prune.",
    "shard": "Turn a dataset on disk into WebDataset shards.",
    "verify": "Check every shard against its manifest and every sample against the schema.",
    "stats": "Tell how much is in shards, and of which classes.",
    "export": "Write shards as one dataset for other trainers: index PNGs, COCO, YOLO, Hugging Face.",
    "merge": "Report which labels mean the same, and which clash.",
    "train": "Train one model on all the shards.",
    "eval": "Measure a trained model on shards or datasets, by their own labels.",
    "compare": "Train and measure variants of a run, and put them side by side.",
    "report": "Put runs side by side: settings, losses, results.",
    "predict": "Segment images with any list of labels.",
    "relabel": "Write shards of several datasets as shards in one taxonomy.",
    "plot": "Draw similarity matrices and other pictures.",
    "demo": "Run all of it on nine toy datasets.",
}


class _OneLine(click.ClickException):
    """A library error as click shows it: `Error: …` on standard error, and the error's own exit status."""

    def __init__(self, error: LabelmergeError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click declares it on the class and reads it off self


class _Pipeline(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"{__package__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelmergeError as error:
            close_bars()
            raise _OneLine(error) from error
        except OSError as error:
            if error.filename is None:  # a fault of the program, or a pipe that click knows how to end
                raise
            close_bars()
            raise _OneLine(LabelmergeError(f"{error.strerror}", where=error.filename)) from error


@click.group(cls=_Pipeline, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="labelmerge")
@click.option("-v", "--verbose", is_flag=True, help="Also log what goes on inside.")
def cli(verbose: bool) -> None:
    """Merge segmentation datasets by what their labels mean.

    describe → embed → shard → train → eval. Start with `labelmerge demo --out demo-out`.
    """
    # No hub is asked for anything but weights that the user names, and tokenizers must not warn about forking.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait must not spin: where other programs use the cores too, training was seven times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not verbose:
        warnings.filterwarnings("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("labelmerge")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def main() -> None:
    """The entry point of the installed command."""
    cli(prog_name="labelmerge")
