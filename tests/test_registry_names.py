"""Names: the full one always works, the short one while it is unambiguous, never a guess."""

import functools
import subprocess
import sys
import types

import cloudpickle
import pytest

import labcore
from labcore.entry import KINDS
from labcore.errors import LabError, PluginError, UnknownName
from labcore.plugins import PluginRecord
from labcore.registry import Registry, load_registry


def sampler(name: str) -> labcore.Entry:
    @labcore.sampler(name=name, order=1)
    def step(process, score, x, ts, noise, *, lam: float = 0.5):
        """One step."""
        yield x

    return step


@labcore.metric
def gap(outcome):
    return 0.0


def record(name: str, *entries: labcore.Entry, **given: str) -> PluginRecord:
    status = given.pop("status", "loaded")
    return PluginRecord(
        name, f"{name}-dist", "1.0", f"{name}_plugin", status, entries=entries, **given
    )


EULER, OTHER_EULER, HEUN = sampler("euler"), sampler("euler"), sampler("heun")
REGISTRY = Registry(
    (
        record("ours", EULER, HEUN, gap),
        record("theirs", OTHER_EULER),
        record("broken", status="failed", reason="ImportError: no dpm"),
        record("off", status="disabled", reason="disabled by LABCORE_DISABLE"),
        record("ours", status="shadowed", reason="distribution 'ours-dist' has this name"),
    )
)


def test_full_names_work_even_where_the_short_one_is_shared() -> None:
    assert REGISTRY.get("sampler", "ours:euler") is EULER
    assert REGISTRY.get("sampler", "theirs:euler") is OTHER_EULER


def test_short_names_work_while_one_plugin_has_them() -> None:
    assert REGISTRY.get("sampler", "heun") is HEUN
    assert REGISTRY.qualified("sampler", "heun") == "ours:heun"
    assert REGISTRY.qualified("sampler", "ours:heun") == "ours:heun"


@pytest.mark.parametrize(
    ("kind", "name", "error", "said"),
    [
        ("sampler", "euler", UnknownName, "write ours:euler or theirs:euler"),
        ("sampler", "huen", UnknownName, "did you mean ours:heun"),
        ("sampler", "ours:huen", UnknownName, "plugin 'ours' has none of that name"),
        ("sampler", "theirs:heun", UnknownName, "plugin 'theirs' has none of that name"),
        ("sampler", "our:heun", UnknownName, "no plugin 'our' is installed; did you mean ours"),
        ("sampler", "gap", UnknownName, "'gap' is a metric"),
        ("sampler", "zzz", UnknownName, "plugin 'broken' failed to load: ImportError: no dpm"),
        ("sampler", "zzz", UnknownName, "there are ours:euler, ours:heun, theirs:euler"),
        ("sampler", "broken:x", PluginError, "'broken' failed to load: ImportError: no dpm"),
        ("sampler", "off:x", PluginError, "'off' is disabled by LABCORE_DISABLE"),
        ("smapler", "heun", UnknownName, "the kinds are process, target"),
        ("sampler", "", UnknownName, "sampler ''"),
        ("sampler", ":", UnknownName, "no plugin '' is installed"),
        ("sampler", "a:b:c", UnknownName, "no plugin 'a:b' is installed"),
    ],
)
def test_refusals_say_why_in_one_line(kind: str, name: str, error: type, said: str) -> None:
    with pytest.raises(error) as caught:
        REGISTRY.get(kind, name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    with pytest.raises(error):
        REGISTRY.qualified(kind, name)


def test_all_lists_full_names_in_order_and_they_resolve() -> None:
    assert [name for name, _ in REGISTRY.all("sampler")] == [
        "ours:euler",
        "ours:heun",
        "theirs:euler",
    ]
    for kind in KINDS:
        for name, entry in REGISTRY.all(kind):
            assert REGISTRY.get(kind, name) is entry


def test_plugin_records_are_found_by_name() -> None:
    assert REGISTRY.plugin("ours").status == "loaded"
    assert REGISTRY.plugin("broken").reason == "ImportError: no dpm"
    with pytest.raises(UnknownName, match="did you mean theirs"):
        REGISTRY.plugin("their")


def test_a_scripts_entries_are_local_and_ambiguity_with_plugins_is_told() -> None:
    mine = sampler("mine")
    registry = load_registry([mine])
    assert registry.get("sampler", "local:mine") is mine
    assert registry.qualified("sampler", "mine") == "local:mine"
    assert load_registry([mine]) is registry
    with pytest.raises(UnknownName):
        load_registry().get("sampler", "local:mine")


def test_wrong_extras_are_refused() -> None:
    with pytest.raises(PluginError, match="two sampler entries named 'euler'"):
        load_registry([EULER, OTHER_EULER])
    with pytest.raises(PluginError, match="is no entry"):
        load_registry([lambda outcome: 0.0])  # type: ignore[list-item]


def test_a_pickled_registry_reopens_the_plugins_and_carries_the_scripts_entries() -> None:
    scale = 3.0

    @labcore.metric(better="lower")
    def scaled(outcome, *, by: float = 2.0):
        return scale * by

    scaled.bind({})  # fills the entry's caches, which must not travel
    registry = load_registry([scaled])
    again = cloudpickle.loads(cloudpickle.dumps(functools.partial(registry.get, "metric")))
    copy = again("local:scaled")
    assert copy(None, **copy.bind({"by": 5})) == 15.0
    assert dict(copy.traits) == {"better": "lower"}


def test_entries_of_a_script_that_others_cannot_import_travel_with_what_they_use() -> None:
    source = """
import labcore
GAIN = 2.0
def helper(x): return GAIN * x
@labcore.metric
def base(outcome, *, a: float = 1.0): return helper(a)
@labcore.metric
def outer(outcome, *, b: float = 3.0): return base(outcome, a=b) + helper(b)
"""
    script = sys.modules["a_script_of_nowhere"] = types.ModuleType("a_script_of_nowhere")
    exec(source, script.__dict__)
    script.base.bind({})
    blob = cloudpickle.dumps(load_registry([script.outer]))
    code = """
import sys, cloudpickle
entry = cloudpickle.load(sys.stdin.buffer).get("metric", "outer")
print(entry(None, **entry.bind({"b": 5})))
"""
    done = subprocess.run([sys.executable, "-c", code], input=blob, capture_output=True)
    assert done.stdout == b"20.0\n", done.stderr.decode()


def test_every_installed_entry_has_one_full_name() -> None:
    registry = load_registry()
    names = [(kind, name) for kind in KINDS for name, _ in registry.all(kind)]
    assert len(names) == len(set(names))
    for kind, name in names:
        try:
            assert registry.get(kind, name).kind == kind
        except LabError as error:  # pragma: no cover
            pytest.fail(str(error))
