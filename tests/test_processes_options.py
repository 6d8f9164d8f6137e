"""An option that makes no process is refused before anything is computed, in one line."""

import pytest

import labcore_linear
from labcore import InvalidOption, InvalidProcess, LabError

ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}
NAN, INF = float("nan"), float("inf")

BAD = [
    ("vp", {"b0": -1.0}, "not negative"),
    ("vp", {"b0": 0.0, "b1": 0.0}, "nor 0 throughout"),
    ("vp", {"b0": 1.0, "b1": -1.0}, "not negative"),
    ("vp", {"b0": 5.0, "b1": 0.5, "T": 2.0}, r"beta\(T\)=-4"),
    ("vp", {"b1": NAN}, "finite"),
    ("vp", {"b1": INF}, "finite"),
    ("vp", {"T": 0.0}, "above 0"),
    ("vp", {"T": INF}, "finite"),
    ("vp", {"t_eps": 0.0}, "above 0"),
    ("vp", {"t_eps": 1.0}, "not below T"),
    ("vp", {"beta": 1.0}, "no option 'beta'"),
    ("vp", {"b0": True}, "boolean"),
    ("vp", {"b0": "ten"}, "number"),
    ("vp_cosine", {"T": 1.0}, "below 1"),
    ("vp_cosine", {"s": 0.0}, "above 0"),
    ("sub_vp", {"b0": -1.0}, "not negative"),
    ("ve", {"sigma_min": 60.0}, "not below sigma_max"),
    ("ve", {"sigma_min": 1.0, "sigma_max": 1.0}, "not below sigma_max"),
    ("ve", {"sigma_min": 0.0}, "above 0"),
    ("ve", {"sigma_min": -0.01}, "above 0"),
    ("ve", {"sigma_max": NAN}, "finite"),
    ("sigma_t", {"sigma": 1.0}, "above 1"),
    ("sigma_t", {"sigma": -2.0}, "above 0"),
    ("edm", {"T": -1.0}, "above 0"),
    ("edm", {"t_eps": 80.0}, "not below T"),
    ("rectified_flow", {"T": 1.0}, "infinite at t=1"),
    ("trigonometric", {"T": 1.5}, "infinite at t=1"),
    ("rectified_flow", {"t_eps": NAN}, "finite"),
    ("diag_vp", {"d": 0}, "dimension"),
    ("diag_vp", {"d": 2.5}, "integer"),
    ("diag_vp", {"b1": [20.0, -30.0]}, "not negative"),
    ("diag_vp", {"b1": [20.0]}, "item 1 is missing"),
    ("ou", {"d": -1}, "dimension"),
    ("ou", {"A": [[-1.0, 0.0], [0.0]]}, "rows of equal length"),
    ("ou", {"A": []}, "rows of equal length"),
    ("ou", {"A": [[]]}, "rows of equal length"),
    ("ou", {"A": [[-1.0, 0.0]]}, r"A is \(1, 2\)"),
    ("ou", {"A": [[NAN]]}, "finite"),
    ("ou", {"A": [[-1.0]], "d": 2}, "one dimension"),
    ("ou", {"A": [[-1.0]], "G": [[1.0, 0.0], [0.0, 1.0]]}, "one dimension"),
    ("ou", {"A": [[-1e12]]}, "too large"),
    ("ou", {"d": 2, "G": [[1.0, 0.0], [0.0, 0.0]], "A": [[-1.0, 0.0], [0.0, -1.0]]}, "reaches"),
    ("cld", {"M": 0.0}, "above 0"),
    ("cld", {"gamma": -0.1}, "above 0"),
    ("cld", {"b0": -4.0}, "not negative"),
    ("rotating", {"omega": INF}, "finite"),
    ("rotating", {"d": 0}, "dimension"),
]


@pytest.mark.parametrize(("name", "options", "reason"), BAD, ids=str)
def test_a_bad_option_is_refused_through_a_study(name, options, reason):
    entry = ENTRIES[name]

    def make():
        return entry(**entry.bind(options))

    with pytest.raises((InvalidOption, InvalidProcess), match=reason) as error:
        make()
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


CALLED = [
    case for case in BAD if case[2] not in ("boolean", "number", "integer", "item 1 is missing")
]


@pytest.mark.parametrize(
    ("name", "options", "reason"), [c for c in CALLED if "no option" not in c[2]], ids=str
)
def test_a_bad_option_is_refused_from_python(name, options, reason):
    with pytest.raises(LabError, match=reason):
        ENTRIES[name](**options)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_process_says_what_it_is_and_where_it_is_from(name):
    entry = ENTRIES[name]
    assert entry.gives <= {"scalar", "diag", "dense", "channel"}
    assert entry.gives == {entry().structure}
    assert entry.traits["cite"]
    assert "t_eps" in entry.doc
    assert "t_eps" in entry.parameters
