"""Python files given on the command line: a study, or a file that defines samplers."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labcore.entry import Entry
    from labcore.registry import Registry
    from labcore.study import Use


def load_script(path: Path, kind: str) -> ModuleType:
    """A script run as a module, not as __main__; InvalidStudy with what it raised.

    Whatever the script is called, the module's name is no other's, and what lies beside the
    script can be imported. ``kind`` is what messages call it.
    """
    import importlib.util

    from labcore.errors import InvalidStudy
    from labcore.text import reason_of

    name, whole = f"{kind} {path.stem}", path.absolute()
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise InvalidStudy(f"{kind} '{path}': it is no Python script; name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(whole.parent))
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = f"{kind} '{path}'{_line(error, whole)}"
        raise InvalidStudy(f"{where}: {reason_of(error)}; mend the script") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """``, line N``, of the script's last line on the way to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    return f", line {lines[-1]}" if lines else ""


FILE = re.compile(r"(?P<path>.+?\.py)(?::(?P<name>[^/\\]+))?", re.DOTALL)


def read_samplers(texts: tuple[str, ...]) -> tuple[Registry, list[Use]]:
    """The registry, with what files define, and the samplers that the arguments name."""
    from labcore.registry import load_registry
    from labcore.study import read_use

    modules: dict[Path, tuple[Entry, ...]] = {}
    named: list[tuple[str, Path | None]] = []
    for text in texts:
        match = FILE.fullmatch(text)
        if match is None:
            named.append((text, None))
            continue
        path = Path(match["path"])
        if not path.is_file():
            raise click.UsageError(f"'{path}': there is no such file")
        if path not in modules:
            modules[path] = entries_of(load_script(path, "file"))
        mine = [entry.name for entry in modules[path] if entry.kind == "sampler"]
        if not mine:
            raise click.UsageError(
                f"'{path}': it defines no sampler; decorate it @labcore.sampler"
            )
        called = [match["name"]] if match["name"] else mine
        if missing := [name for name in called if read_use(name).name not in mine]:
            known = ", ".join(mine)
            raise click.UsageError(f"'{path}': no sampler '{missing[0]}' in it; it has {known}")
        named += [(f"local:{name}", path) for name in called]
    extra = dict.fromkeys(entry for entries in modules.values() for entry in entries)
    return load_registry(list(extra)), [read_use(text) for text, _ in named]


def entries_of(module: ModuleType) -> tuple[Entry, ...]:
    """What a module defines with the decorators, each once, in order."""
    from labcore.entry import Entry

    return tuple(dict.fromkeys(v for v in vars(module).values() if isinstance(v, Entry)))
