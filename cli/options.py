"""Options that mean the same in every command, and how commands show progress and results."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import click

from labelmerge.errors import OutputError, did_you_mean, printable
from labelmerge.progress import once
from labelmerge.settings import Setting
from labelmerge.text import counted as counted
from labelmerge.text import printable_json, printable_lines

from . import complete as complete
from .log_lines import LogLines
from .paths import InputPath as InputPath
from .paths import existing_file as existing_file
from .paths import existing_folder as existing_folder
from .paths import folder as folder
from .paths import folder_of_files as folder_of_files
from .paths import input_folder as input_folder
from .paths import is_url as is_url
from .paths import new_file as new_file
from .paths import own_folder as own_folder
from .paths import refuse_missing as refuse_missing
from .typed import Number as Number
from .typed import WholeNumber as WholeNumber
from .typed import refuse_idle as refuse_idle
from .typed import was_typed as was_typed

if TYPE_CHECKING:
    from labelmerge.model.views import Views

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_MOST_SCALES = 100
_SMALLEST_EDGE = 16  # pixels; in less no network sees anything


def out_folder(what: str) -> Callable[[F], F]:
    """`--out DIR`: required, so that nothing lands where nobody asked for it."""
    return click.option("--out", type=folder, required=True, metavar="DIR", help=what)


def out_file(what: str) -> Callable[[F], F]:
    """`--out FILE`: required."""
    return click.option("--out", type=new_file, required=True, metavar="FILE", help=what)


def bank(required: bool = True) -> Callable[[F], F]:
    """`--bank BANK`: the folder that `labelmerge embed` wrote."""
    return click.option(
        "--bank",
        type=input_folder,
        required=required,
        metavar="BANK",
        help="The embedding bank that `embed` wrote, or its URL.",
    )


def checkpoint(function: F) -> F:
    """`--checkpoint RUN`: required."""
    return click.option(
        "--checkpoint",
        type=input_folder,
        required=True,
        metavar="RUN",
        help="A run, or one checkpoint of it, or a URL.",
    )(function)


def shards(
    what: str = "Folders that `shard` wrote, or their URLs: a split, a dataset, or a folder of datasets.",
    required: bool = True,
) -> Callable[[F], F]:
    """`--shards DIR…`: may be repeated, and takes several folders at once."""
    return click.option("--shards", type=input_folder, required=required, multiple=True, metavar="DIR…", help=what)


def device(function: F) -> F:
    """`--device`: where tensors live; by default a GPU if there is one."""
    return click.option(
        "--device",
        shell_complete=complete.device,
        metavar="DEV",
        help="cpu, cuda, cuda:1, mps; default: a GPU if there is one.",
    )(function)


def seed(function: F) -> F:
    """`--seed N`."""
    return click.option(
        "--seed", type=WholeNumber(min=0), metavar="N", default=0, show_default=True, help="Random seed."
    )(function)


def as_json(function: F) -> F:
    """`--json`: the result as one JSON object on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


class SectionOption(click.Option):
    """An option that --help shows under a heading (`SpreadCommand`)."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def setting_flag(declared: Setting, section: str) -> Callable[[F], F]:
    """The flag of a setting (labelmerge.settings): None where it is not given."""
    name = declared.name
    option = partial(
        click.option, f"--{name.replace('_', '-')}", name, cls=SectionOption, section=section, help=declared.help
    )
    if declared.kind is bool:
        return option(is_flag=True, default=None)
    metavar = declared.metavar or ("N" if declared.is_number else None)
    if declared.kind is int:
        minimum, maximum = (None if bound is None else int(bound) for bound in (declared.minimum, declared.maximum))
        return option(type=WholeNumber(minimum, maximum), metavar=metavar)
    if declared.kind is str and declared.choices:
        return option(type=click.Choice(declared.choices))
    if get_origin(declared.kind) is not None:  # several values, with commas or by repeating the flag
        return option(multiple=True, metavar=metavar, callback=lambda _, __, texts: ",".join(texts) if texts else None)
    kind = Number() if declared.kind is float else str
    return option(type=kind, metavar=metavar, shell_complete=complete.setting(declared))


def _scales(ctx: click.Context, option: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        if ":" not in value:
            return tuple(float(part) for part in value.split(","))
        first, last, step = (float(part) for part in value.split(":"))
        count = round((last - first) / step)
        if step > 0 and 0 <= count < _MOST_SCALES and abs(first + count * step - last) < 1e-6:
            return tuple(round(first + place * step, 6) for place in range(count + 1))
    except (ValueError, ArithmeticError):
        pass
    raise click.BadParameter(
        f"{value!r} is neither a list of numbers such as 0.5,1,1.5 nor FIRST:LAST:STEP such as 0.5:1.75:0.25",
        ctx,
        option,
    )


def _edge(ctx: click.Context, option: click.Parameter, value: int | None) -> int | None:
    if value is not None and 0 < value < _SMALLEST_EDGE:
        raise click.BadParameter(f"{value} pixels show a network nothing: 0, or {_SMALLEST_EDGE} and more", ctx, option)
    return value


def _share(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    above, slash, below = value.partition("/")
    try:
        return float(above) / float(below) if slash else float(value)
    except (ValueError, ArithmeticError):
        raise click.BadParameter(f"{value!r} is not a share such as 2/3 or 0.5", ctx, option) from None


def by(function: F) -> F:
    """`--by concepts|text`: what labels are asked for by."""
    return click.option(
        "--by",
        type=click.Choice(["concepts", "text"]),
        help="Look for labels by the columns of the run that they stand for, or by their own texts; default: concepts, "
        "if the run's columns are concepts.",
    )(function)


def views(function: F) -> F:
    """`--short-edge N`, `--scales S,S…`, `--flip`, `--window N`: how images are shown to the model.

    The command gets what was given of them, `short_edge`, `scales`, `flip`, `window`, `window_stride`: `chosen_views`.
    """
    return _views(click.option, function)


def chosen_views(chosen: dict[str, Any]) -> Views:
    """The options of `views`, taken out of what a command was given."""
    from labelmerge.model.views import Views

    given = {name: chosen.pop(name) for name in ("short_edge", "scales", "flip", "window", "window_stride")}
    return Views(**{name: value for name, value in given.items() if value is not None})


def eval_views(function: F) -> F:
    """The same as `views` beside options of training, under a heading: `--eval-short-edge N` and so on."""
    return _views(eval_option, function, "eval-")


eval_option = partial(click.option, cls=SectionOption, section="Evaluation")


def depth_limits(function: F, option: Callable[..., Callable[[F], F]] = click.option, prefix: str = "") -> F:
    """--depth-crop and --depth-max."""
    function = option(
        f"--{prefix}depth-max",
        type=Number(),
        metavar="METRES",
        help="For depth: ignore what is farther away, such as 10 (NYUv2) or 80 (KITTI).",
    )(function)
    return option(
        f"--{prefix}depth-crop",
        type=click.Choice(["nyu-eigen", "kitti-eigen", "kitti-garg"]),
        help="For depth: the part of the image that counts; default: all of it.",
    )(function)


def _views(option: Callable[..., Callable[[F], F]], function: F, prefix: str = "") -> F:
    function = option(
        f"--{prefix}window-stride",
        callback=_share,
        metavar="SHARE",
        help="Step from one window to the next, as a share of the window.  [default: 2/3]",
    )(function)
    function = option(
        f"--{prefix}window",
        type=WholeNumber(min=_SMALLEST_EDGE),
        metavar="N",
        help="Slide a window of N x N pixels over the image, and average where windows overlap.",
    )(function)
    function = option(f"--{prefix}flip", is_flag=True, help="Also average over mirror images.")(function)
    function = option(
        f"--{prefix}scales",
        default="1",
        show_default=True,
        metavar="S,S…",
        callback=_scales,
        help="Factors of that size, or FIRST:LAST:STEP; results at several scales are averaged.",
    )(function)
    return option(
        f"--{prefix}short-edge",
        type=WholeNumber(min=0),
        callback=_edge,
        metavar="N",
        help="Resize each image's short edge to N pixels; 0 keeps its size; default: as in training.",
    )(function)


class SpreadCommand(click.Command):
    """A command without arguments whose repeatable options take every value up to the next option.

    Its --help shows options under headings, where they have one.

    `--shards a b` then means `--shards a --shards b`, so that shell patterns (`--shards out/*`) work.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        out, current = list[str](), ""
        for arg, after in zip(args, [*args, "--"][1:], strict=True):
            if arg.startswith("-") and arg != "-":
                current = arg if arg in spread else ""
                if current and after.startswith("-") and after != "-" and not ctx.resilient_parsing:
                    raise click.BadOptionUsage(current, f"Option {current!r} requires an argument.", ctx)
                out += [] if current else [arg]
            else:
                out += [current, arg] if current else [arg]
        return super().parse_args(ctx, out)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options under their headings, those without one first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Show no progress from now on, or do."""
    global _quiet
    _quiet = quiet


def track(things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
    """Progress on standard error (labelmerge.progress.Track): a bar on a terminal, else a short line a minute."""
    if _quiet:
        return things
    if not sys.stderr.isatty():
        return LogLines(things, printable(what), total)
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(things, desc=printable(what), total=total, dynamic_ncols=True, mininterval=0.2)
    return bar


def load_torch() -> None:
    """Import it, which takes seconds: a terminal shows what one waits for."""
    if "torch" not in sys.modules:
        once(lambda: __import__("torch"), "loading torch", track)


def styled(text: str, **style: Any) -> str:
    """Text in colour where standard error is a terminal that wants it."""
    return click.style(text, **style) if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text


class Group(click.Group):
    """A group of commands that answers a wrong name by the near ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = str(args[0])
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command {name!r}. {near}", ctx)
        return super().resolve_command(ctx, args)


def close_bars() -> None:
    """End the lines of progress bars that an error has interrupted, so that its message starts a line of its own."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()


def made(new: bool, back: bool) -> str:
    """What became of a bank's version: it is new, an earlier one that is the newest again, or the newest still."""
    return "Made" if new else "Newest again:" if back else "Unchanged:"


def echo(text: str, err: bool = False) -> None:
    """Print lines that may have names from files in them: no control characters of theirs reach the terminal."""
    click.echo(printable_lines(text), err=err)


def say(result: Any, as_json: bool, text: str) -> None:
    """Print the command's last words: what was made and where, or the same as JSON."""
    try:
        echo(printable_json(result) if as_json else text)
    except BrokenPipeError:  # click ends the program quietly
        raise
    except OSError as error:
        raise OutputError(f"can't be written ({error.strerror})", where="standard output") from error
