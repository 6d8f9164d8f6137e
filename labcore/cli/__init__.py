"""The ``labcore`` command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from labcore.errors import LabError
from labcore.text import reason_of

COMMANDS = {
    "plugins": "plugins",
    "list": "entries",
    "show": "entries",
    "check": "check",
    "certificates": "certificates",
    "fingerprint": "fingerprint",
    "run": "study",
    "train": "train",
    "likelihood": "likelihood",
    "results": "results",
    "reversals": "reversals",
    "plot": "figures",
    "salvage": "salvage",
    "completion": "completion",
}
"""Each command and the module of this package that holds it, as ``<name>_command``."""


class Lazy(click.Group):
    """A group whose commands are imported when they are used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"labcore.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from difflib import get_close_matches

        name = args[0] if args else ""
        near = get_close_matches(name, COMMANDS, n=1)
        if name not in COMMANDS and near and not name.startswith("-"):
            raise click.UsageError(f"No such command '{name}'. Did you mean '{near[0]}'?", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 some cells or checks failed, 2 bad usage, study or plugin, "
    "3 store busy or damaged, 130 interrupted.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="labcore")
def cli(debug: bool) -> None:
    """A lab that measures the samplers of score-based generative models."""


def main(arguments: list[str] | None = None) -> None:
    """The console script: runs the command, says errors in one line, exits with their code."""
    given = sys.argv[1:] if arguments is None else arguments
    guard(lambda: cli.main(args=given, prog_name="labcore", standalone_mode=False), given)


def guard(command: Callable[[], Any], arguments: list[str]) -> None:
    """Run ``command`` and leave with its exit code; errors are one line on stderr."""
    debug = "--debug" in arguments
    code = 0
    with suppress(AttributeError):  # a stream that is no file's
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order, as for Ctrl-C
    try:
        result = command()
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("labcore: interrupted; what was finished is in the store", err=True)
        code = 130
    except BrokenPipeError:
        # The reader went away (``| head``); keep Python from failing again at its own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except LabError as error:
        if debug:
            raise
        click.echo(f"labcore: {printable(str(error))}", err=True)
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        click.echo(f"labcore: {reason_of(error)}; --debug shows the traceback", err=True)
        code = 1
    sys.exit(code)


def printable(text: str) -> str:
    """The text without escape sequences and other control characters, line ends kept."""
    return "".join(c for c in text if c == "\n" or c.isprintable())
