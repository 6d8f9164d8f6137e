"""Python files given on the command line: a study, or a file that defines samplers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def load_script(path: Path, kind: str) -> ModuleType:
    """A script run as a module, not as __main__; InvalidStudy with what it raised.

    Whatever the script is called, the module's name is no other's, and what lies beside the
    script can be imported. ``kind`` is what messages call it.
    """
    import importlib.util

    from labcore.errors import InvalidStudy
    from labcore.text import reason_of

    name = f"{kind} {path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidStudy(f"{kind} '{path}': it is no Python script; name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.absolute().parent))
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise InvalidStudy(f"{kind} '{path}': {reason_of(error)}; mend the script") from error
    return module
