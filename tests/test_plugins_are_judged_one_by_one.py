"""A plugin that cannot be used has a verdict with the reason, and harms no other."""

import sys
import time
from pathlib import Path

import pytest
from distributions import HEAD, distribution, python, told

GOOD = """
@labcore.hookimpl
def register_samplers():
    return [euler]

@labcore.hookimpl
def register_metrics():
    return (gap,)
"""
HOOK = "@labcore.hookimpl\ndef register_samplers():\n    return "

BAD = {
    "raises": ("raise ValueError('beta\\n  is wrong')", "ValueError: beta is wrong"),
    "missing": ("import no_such_module", "needs the module 'no_such_module', which is not"),
    "exits": ("import sys; sys.exit(3)", "called sys.exit(3)"),
    "generator_exit": ("raise GeneratorExit", "GeneratorExit"),
    "misspelt": (
        "@labcore.hookimpl\ndef register_sampler():\n    return [euler]",
        "there is no hook 'register_sampler'; did you mean 'register_samplers'?",
    ),
    "unmarked": (
        "def register_samplers():\n    return [euler]",
        "register_samplers is not marked as a hook; put @labcore.hookimpl above it",
    ),
    "hookless": ("", "it has no hook; define one of register_"),
    "wrong_arguments": (
        "@labcore.hookimpl\ndef register_samplers(registry):\n    return [euler]",
        "hooks take no arguments",
    ),
    "hook_raises": (HOOK + "[1 / 0]", "ZeroDivisionError: division by zero"),
    "none": (HOOK + "None", "register_samplers returned None; return a list of entries"),
    "generator": (HOOK + "(e for e in [euler])", "returned a generator"),
    "mapping": (HOOK + "{'euler': euler}", "returned a dict; return a list"),
    "klass": (HOOK + "labcore.Entry", "returned the class Entry"),
    "bare_function": (
        "def heun(): ...\n" + HOOK + "[heun]",
        "returned a function 'heun' in its list; decorate it @labcore.sampler",
    ),
    "wrong_kind": (HOOK + "[gap]", "the metric 'gap'; return it from register_metrics"),
    "twice": (HOOK + "[euler, euler]", "two entries named 'euler'; rename one"),
    "bad_entry": (
        "@labcore.sampler\ndef s(x):\n    yield x",
        "a sampler takes (process, score, x, ts, noise)",
    ),
}
SHOW = """
import json
from labcore import plugins
rows = [(r.name, r.status, r.reason, r.traceback, [e.name for e in r.entries])
        for r in plugins.load()]
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    site = tmp_path_factory.mktemp("site packages")
    distribution(site, "good", "good = good_plugin", good_plugin=GOOD)
    for name, (source, _) in BAD.items():
        distribution(site, f"bad-{name}", f"{name} = plug_{name}", **{f"plug_{name}": source})
    noisy = "import torch\nprint('hello')\ntorch.set_default_dtype(torch.float64)\n"
    noisy += "torch.manual_seed(0)\nimport os\nos.chdir('/')\n"
    distribution(site, "rude", "rude = rude_plugin", rude_plugin=noisy + GOOD)
    distribution(site, "zwei", "good = zwei_plugin", zwei_plugin=GOOD)
    distribution(site, "class", "klasse = klasse_plugin:K", klasse_plugin="class K: ...")
    distribution(site, "form", "form = not a module!")
    distribution(site, "reserved", "local = good_plugin")
    rows = told(site, SHOW, LABCORE_DISABLE="labcore, none")
    return {f"{row[0]} {row[1]}": row for row in rows}


def test_a_good_plugin_loads_among_bad_ones(judged: dict) -> None:
    assert judged["good loaded"][2:] == ["", "", ["gap", "euler"]]


@pytest.mark.parametrize("name", [n for n in BAD if n != "none"])
def test_a_bad_plugin_fails_with_one_line(judged: dict, name: str) -> None:
    reason = judged[f"{name} failed"][2]
    assert BAD[name][1] in reason
    assert reason.isprintable()
    assert judged[f"{name} failed"][4] == []


def test_tracebacks_are_kept_for_what_plugins_raise(judged: dict) -> None:
    assert "plug_raises.py" in judged["raises failed"][3]
    assert "plug_hook_raises.py" in judged["hook_raises failed"][3]


def test_disabled_plugins_are_not_imported(judged: dict) -> None:
    assert judged["none disabled"][2] == "disabled by LABCORE_DISABLE"


def test_a_second_distribution_with_the_name_is_shadowed_aloud(judged: dict) -> None:
    reason = judged["good shadowed"][2]
    assert "distribution 'good' has a plugin of this name" in reason
    assert "LABCORE_DISABLE=good" in reason


def test_process_wide_state_is_put_back_and_told(judged: dict) -> None:
    *_, reason, _, entries = judged["rude loaded"]
    assert entries == ["gap", "euler"]
    for changed in ("default dtype", "torch's global generator", "working directory"):
        assert changed in reason


def test_entry_points_that_cannot_name_a_plugin(judged: dict) -> None:
    assert "is a class; name a module" in judged["klasse failed"][2]
    assert "not of the form module or module:object" in judged["form failed"][2]
    assert "kept for entries that scripts define" in judged["local failed"][2]


def test_disabling_the_holder_gives_the_name_to_the_next(tmp_path: Path) -> None:
    distribution(tmp_path, "first", "good = first_plugin", first_plugin=GOOD)
    distribution(tmp_path, "second", "good = second_plugin", second_plugin=GOOD)
    rows = told(tmp_path, SHOW, LABCORE_DISABLE="labcore,first")
    assert [row[:2] for row in rows if row[0] == "good"] == [
        ["good", "disabled"],
        ["good", "loaded"],
    ]


def test_a_distribution_found_twice_is_listed_once(tmp_path: Path) -> None:
    distribution(tmp_path / "a", "twice", "two = two_plugin", two_plugin=GOOD)
    distribution(tmp_path / "b", "Twice", "two = two_plugin", version="0.9", two_plugin=GOOD)
    code = f"""
        import json, sys
        sys.path[:0] = [{str(tmp_path / "a")!r}, {str(tmp_path / "b")!r}]
        from labcore import plugins
        found = [r for r in plugins.discover() if r.name == "two"]
        print(json.dumps([(r.version, r.status) for r in found]))
    """
    assert told(tmp_path, code) == [["1.0", "found"]]


def test_listing_imports_no_plugin_no_torch_and_is_quick(tmp_path: Path) -> None:
    distribution(tmp_path, "boom", "boom = boom_plugin", boom_plugin="raise SystemExit")
    code = """
        import json, sys
        from labcore import plugins
        names = [r.name for r in plugins.discover()]
        slow = [m for m in ("torch", "pandas", "distributed", "sqlalchemy") if m in sys.modules]
        print(json.dumps([names, slow, "boom_plugin" in sys.modules]))
    """
    names, slow, imported = told(tmp_path, code)
    assert {"boom", "samplers", "metrics"} <= set(names)
    assert not slow
    assert not imported


def test_a_garbled_entry_point_file_is_told(tmp_path: Path) -> None:
    distribution(tmp_path, "garbled", "this line has no sign")
    code = """
        import json
        from labcore import plugins
        found = plugins.discover()
        print(json.dumps([len(found), [r.reason for r in found if r.name == "garbled"]]))
    """
    count, reasons = told(tmp_path, code)
    assert count > 1
    assert "its entry_points.txt cannot be read" in reasons[0]


def test_listing_survives_an_unreadable_neighbour(tmp_path: Path) -> None:
    neighbour = tmp_path / "other-1.0.dist-info"
    neighbour.mkdir()
    (neighbour / "entry_points.txt").write_bytes(b"[labcore]\n\xff\xfe = x\n")
    done = python(tmp_path, "from labcore import plugins; plugins.discover()")
    assert done.returncode == 0, done.stderr


def test_control_c_while_a_plugin_loads_is_not_swallowed(tmp_path: Path) -> None:
    distribution(tmp_path, "stop", "stop = stop_plugin", stop_plugin="raise KeyboardInterrupt")
    done = python(
        tmp_path, "from labcore import plugins; plugins.load()", LABCORE_DISABLE="labcore"
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0


def test_the_distribution_template_is_a_sound_plugin() -> None:
    # The tests above mean something only while the good half of every module is good.
    namespace: dict = {}
    exec(HEAD + GOOD, namespace)
    assert namespace["register_samplers"]() == [namespace["euler"]]


def test_discovery_takes_milliseconds() -> None:
    from labcore import plugins

    plugins.discover()
    begun = time.perf_counter()
    plugins.discover()
    assert time.perf_counter() - begun < 0.5, sys.path
