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
from labelmerge.errors import LabelmergeError, UsageError
from labelmerge.text import printable_lines

from . import options

# In the order of the pipeline. The help line stands here so that `labelmerge --help` imports no command.
COMMANDS = {
    "ls": "List the known datasets; show where to get one, and its files and classes.",
    "describe": "Write what the labels of a dataset mean.",
    "embed": "Turn labels and descriptions into a versioned embedding bank.",
    "bank": "Show what a bank holds and what changed; export, import, prune.",
    "recipe": "Find out what a folder holds, and write its recipe.",
    "shard": "Turn a dataset on disk into WebDataset shards.",
    "verify": "Check every shard against its manifest and every sample against the schema.",
    "stats": "Count what is in shards: samples, pixels, boxes, classes.",
    "export": "Write shards as one dataset for other trainers: index PNGs, COCO, YOLO, Hugging Face.",
    "merge": "Find out which labels mean the same, which contain others, and which clash.",
    "train": "Train one model on all the shards.",
    "eval": "Measure a trained model on shards or datasets, by their own labels.",
    "compare": "Train and measure variants of a run, and put them side by side.",
    "report": "Put runs side by side: settings, losses, results.",
    "predict": "Segment images with any list of labels.",
    "relabel": "Rewrite the shards of several datasets in one taxonomy.",
    "push": "Upload shards, exports, banks and runs to the hub or another URL, with a card.",
    "plot": "Draw figures: similarity matrices, maps, nearest labels.",
    "demo": "Run the whole pipeline on nine toy datasets.",
    "config": "Show the options that labelmerge.toml and the environment set.",
    "completion": "Print a shell script that completes commands, options and datasets.",
}
_ANYWHERE = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}


class _OneLine(click.ClickException):
    """A library error as click shows it: `Error: …` on standard error, and the error's own exit status."""

    def __init__(self, error: LabelmergeError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click declares it on the class and reads it off self

    def show(self, file: Any = None) -> None:
        options.close_bars()
        click.echo(f"{options.styled('Error:', fg='red', bold=True)} {self.format_message()}", err=True)


class _Lines(logging.Formatter):
    """What the library logs: a line as it is, warnings in colour on terminals."""

    def format(self, record: logging.LogRecord) -> str:
        line = printable_lines(super().format(record))
        return options.styled(line, fg="yellow") if record.levelno >= logging.WARNING else line


class _Pipeline(options.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"{__package__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--quiet` and `--verbose` may stand anywhere, as they are guessed to."""
        words = args[: args.index("--")] if "--" in args else args
        chosen = {_ANYWHERE[word] for word in words if word in _ANYWHERE}
        rest = [word for word in words if word not in _ANYWHERE] + args[len(words) :]
        return super().parse_args(ctx, [f"--{name}" for name in sorted(chosen)] + rest)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelmergeError as error:
            raise _OneLine(error) from error
        except OSError as error:
            if error.filename is None:  # a fault of the program, or a pipe that click knows how to end
                raise
            raise _OneLine(LabelmergeError(f"{error.strerror}", where=error.filename)) from error
        except RuntimeError as error:
            if "Symlink loop" not in str(error):  # of pathlib
                raise
            raise _OneLine(LabelmergeError(f"{error}")) from error


@click.group(cls=_Pipeline, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="labelmerge")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Log more details.")
@click.pass_context
def cli(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Merge segmentation datasets by what their labels mean.

    describe → embed → shard → train → eval. Start with `labelmerge demo --out demo-out`, or with two lists of names:
    `labelmerge merge mine.txt theirs.csv --out merge`.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose can't be combined")
    options.be_quiet(quiet)
    # No hub is asked for anything but weights that the user names, and tokenizers must not warn about forking.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait must not spin: where other programs use the cores too, training was seven times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not verbose:
        warnings.filterwarnings("ignore")
        # Our own one line says what is retried, and how it fails in the end.
        logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    logger = logging.getLogger("labelmerge")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    logger.propagate = False
    name = context.invoked_subcommand
    if name is not None and name not in ("config", "completion"):
        _take_settings(context, name)


def _take_settings(context: click.Context, name: str) -> None:
    from .config import cache_from, defaults_for, read_settings

    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the folder that you are in has been removed", fix="Go to another: `cd ~`") from error
    settings = read_settings(tuple(COMMANDS))
    context.with_resource(cache_from(settings))
    command = cli.get_command(context, name)
    if command is not None and (settings.shared or settings.tables):
        context.default_map = {name: defaults_for(name, command, settings)}


def main() -> None:
    """Run the command line as it was typed (`labelmerge.cli.entry` does, too)."""
    cli(prog_name="labelmerge")
