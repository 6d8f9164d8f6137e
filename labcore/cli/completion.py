"""``labcore completion``: the script that switches tab completion on."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the tab-completion script of a SHELL.

    For bash: labcore completion bash > ~/.local/share/bash-completion/completions/labcore
    """
    from click.shell_completion import get_completion_class

    from labcore.cli import cli

    make = get_completion_class(shell)
    if make is None:
        raise click.UsageError(f"this click has no completion for {shell}")
    click.echo(make(cli, {}, "labcore", "_LABCORE_COMPLETE").source())
