"""`labelmerge completion`: what a shell needs to complete commands, options, datasets and presets."""

from __future__ import annotations

import click

_HOW = {
    "bash": """eval "$(labelmerge completion bash)"  # in ~/.bashrc""",
    "zsh": """eval "$(labelmerge completion zsh)"  # in ~/.zshrc""",
    "fish": "labelmerge completion fish | source  # in ~/.config/fish/config.fish",
}

# zsh itself knows no completion until this has run, which not every ~/.zshrc does.
_BEFORE = {"zsh": "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a shell script that completes commands, options, datasets and presets.

    \b
    Example (one line for ~/.bashrc; zsh is the same, fish: labelmerge completion fish | source):
      eval "$(labelmerge completion bash)"
    """
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    root = context.find_root()
    click.echo(f"# {_HOW[shell]}")
    if shell in _BEFORE:
        click.echo(_BEFORE[shell])
    click.echo(completion(root.command, {}, "labelmerge", "_LABELMERGE_COMPLETE").source())
