"""Options are keyword-only parameters, checked all at once before anything runs."""

import json
import math
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Gt
from hypothesis import given
from hypothesis import strategies as st

import labcore
from labcore.entry import KINDS
from labcore.errors import InvalidOption, PluginError
from labcore.hookspecs import HOOK_OF


@labcore.sampler(order=1.0, evals=1, needs=("scalar",), cite="Euler (1768)")
def euler(
    process: Any,
    score: Any,
    x: Any,
    ts: Any,
    noise: Any,
    *,
    lam: float = 0,
    rho: Annotated[float, Gt(0)] = 7.0,
    order: int = 2,
    kind: Literal["sde", "ode"] = "ode",
    final: bool = True,
    knots: tuple[float, ...] = (),
    copy: int = 1,
    json: str = "",
) -> Any:
    """Explicit Euler along the grid. More text that is no summary.

    And a second paragraph.
    """
    yield x


def test_defaults_are_filled_in_and_have_their_declared_type() -> None:
    bound = euler.bind({})
    assert bound == {
        **{"lam": 0.0, "rho": 7.0, "order": 2, "kind": "ode", "final": True, "knots": ()},
        **{"copy": 1, "json": ""},
    }
    assert isinstance(bound["lam"], float)
    # A default and the same value given are one computation, so they must be one text.
    assert json.dumps(bound) == json.dumps(euler.bind({"lam": 0, "rho": 7, "copy": 1}))


@given(
    lam=st.floats(allow_nan=False, allow_infinity=False),
    order=st.integers(),
    knots=st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_values_of_the_right_type_pass_unchanged(lam: float, order: int, knots: list) -> None:
    bound = euler.bind({"lam": lam, "order": order, "knots": knots})
    assert (bound["lam"], bound["order"], bound["knots"]) == (lam, order, tuple(knots))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lamb": 1}, "no option 'lamb' (did you mean 'lam'?)"),
        ({"zzz": 1}, "no option 'zzz'; its options are: lam, rho"),
        ({"lam": "ten"}, "lam='ten'"),
        ({"lam": math.nan}, "lam=nan"),
        ({"lam": math.inf}, "lam=inf"),
        ({"lam": True}, "lam=True is a boolean where float is wanted"),
        ({"order": True}, "order=True is a boolean"),
        ({"order": 2.5}, "order=2.5"),
        ({"order": None}, "order=None"),
        ({"rho": -1}, "rho=-1: input should be greater than 0"),
        ({"rho": 0}, "rho=0"),
        ({"kind": "pde"}, "kind='pde'"),
        ({"knots": [1.0, "x"]}, "knots[1]='x'"),
        ({"copy": "a"}, "copy='a'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        euler.bind(options)
    assert said in str(caught.value)
    assert str(caught.value).startswith("sampler 'euler': ")
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidOption) as caught:
        euler.bind({"lamb": 1, "rho": -1, "order": True, "kind": 3})
    for name in ("lamb", "rho", "order", "kind"):
        assert name in str(caught.value)


def test_an_option_without_default_must_be_given() -> None:
    @labcore.target
    def images(*, path: str) -> Any: ...

    with pytest.raises(InvalidOption, match="option 'path' must be given"):
        images.bind({})
    assert images.bind({"path": "a"}) == {"path": "a"}


def test_items_of_an_option_are_named_by_their_place() -> None:
    @labcore.process
    def ends(
        *,
        b: tuple[float, float] = (0.1, 0.2),
        k: Annotated[int, Gt(0)] = 1,
        d: dict[str, float] | None = None,
        n: tuple[tuple[float, float], ...] = (),
    ) -> Any: ...

    def said(**options: Any) -> str:
        with pytest.raises(InvalidOption) as caught:
            ends.bind(options)
        return str(caught.value)

    assert "'ends': b: its item 1 is missing (it takes tuple[float, float]);" in said(b=(0.1,))
    assert "b[1]='x': input should be a valid number" in said(b=(0.1, "x"))
    assert "k=-1: input should be greater than 0 (it takes int);" in said(k=-1)
    assert "d['u']='v': input should be a valid number" in said(d={"u": "v"})
    assert "n[1]: its item 1 is missing" in said(n=((1.0, 2.0), (1.0,)))


def test_a_type_that_cannot_be_found_is_the_plugins_fault() -> None:
    def odd(*, a: "NoSuchType" = 1) -> Any: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PluginError, match="process 'odd': the type of an option is unknown"):
        labcore.process(odd).bind({})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_checks_its_positional_parameters(kind: str) -> None:
    decorate = getattr(labcore, kind)(name="made")
    option = ", *, t_eps" if kind == "grid" else ""
    good = ", ".join(KINDS[kind])

    def taking(parameters: str) -> Any:
        return eval(f"lambda {parameters.lstrip(', ')}: None")

    entry = decorate(taking(good + option))
    assert (entry.kind, entry.name) == (kind, "made")
    assert kind in HOOK_OF
    for parameters in (f"{good}, more{option}", f"{good}, *rest", f"{good}, **rest"):
        with pytest.raises(PluginError, match=f"{kind} 'made'"):
            decorate(taking(parameters))


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({"order": "two"}, "order='two', it must be a positive number; leave it out"),
        ({"order": 0}, "order=0, it must be a positive number"),
        ({"order": True}, "order=True"),
        ({"order": math.inf}, "order=inf"),
        ({"order": math.nan}, "order=nan"),
        ({"strong": -0.5}, "strong=-0.5, it must be a positive number"),
        ({"evals": -1}, "evals=-1, it must be a whole number, 0 or more"),
        ({"evals": 1.5}, "evals=1.5"),
        ({"extra": "one"}, "extra='one', it must be a whole number"),
        ({"ordr": 1}, "no trait 'ordr'; did you mean 'order'?"),
        ({"stochastc": True}, "no trait 'stochastc'; did you mean 'stochastic'?"),
        ({"eval": 1}, "no trait 'eval'; did you mean 'evals'?"),
        ({"need": ("scalar",)}, "no trait 'need'; did you mean 'needs'?"),
    ],
)
def test_a_sampler_that_declares_what_cannot_be_is_refused(
    traits: dict[str, Any], said: str
) -> None:
    with pytest.raises(PluginError) as caught:
        labcore.sampler(name="mine", **traits)(euler.fn)
    assert str(caught.value).startswith(f"sampler 'mine': {said}")


def test_traits_of_a_plugins_own_and_numbers_of_any_kind_pass() -> None:
    own = {"library": "acme", "draws": 2, "end": "x0", "grid": "karras", "dtype": "float32"}
    numbers = {"order": np.float64(1.5), "evals": np.int64(2), "extra": -2, "strong": None}
    made = labcore.sampler(name="mine", **own, **numbers)(euler.fn)
    assert dict(made.traits) == {**own, **numbers}
    assert labcore.sampler(name="mine", evals=0, order=None)(euler.fn).traits["evals"] == 0
    with pytest.raises(
        PluginError, match="metric 'mine': no trait 'beter'; did you mean 'better'"
    ):
        labcore.metric(name="mine", beter="lower")(lambda outcome: 0.0)


def test_names_that_would_break_plugin_colon_name_are_refused() -> None:
    for name in ("", "a:b", "a b", "1a", "<b>", "a\x1b[1m", "../x"):
        with pytest.raises(PluginError, match="not a usable name"):
            labcore.metric(name=name)(lambda outcome: 0.0)


def test_an_entry_is_its_function_with_facts() -> None:
    assert list(euler(1, 2, 3, 4, 5)) == [3]
    assert euler.summary == "Explicit Euler along the grid"
    assert euler.needs == {"scalar"}
    assert euler.gives == frozenset()
    assert euler.traits["order"] == 1.0
    with pytest.raises(TypeError):
        euler.traits["order"] = 2.0  # type: ignore[index]


def test_every_installed_option_has_a_type_and_a_default_that_passes() -> None:
    registry = labcore.load_registry()
    for kind in KINDS:
        for name, entry in registry.all(kind):
            required = [p.name for p in entry.parameters.values() if p.default is p.empty]
            if not required:
                assert set(entry.bind({})) == set(entry.parameters), name
            assert all(p.annotation is not p.empty for p in entry.parameters.values()), name
            assert entry.summary, f"{kind} {name} has no docstring"


def test_installed_entry_points_are_those_of_the_project() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["project"]["entry-points"]["labcore"]
    points = distribution("labcore").entry_points.select(group="labcore")
    assert {p.name: p.value for p in points} == wanted, "install again: pip install -e ."
