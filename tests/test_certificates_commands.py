"""labcore check and labcore certificates: verdicts, exit codes, and a store that keeps them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_lab

import labcore
from labcore import lab, use
from labcore.certificates import Certificate
from labcore.certification import default_process
from labcore.cli import main
from labcore.errors import InvalidOption, UnknownName
from labcore.store import open_store
from labcore.testing import CHECKS

SCRIPT = '''
import os
from itertools import pairwise
import labcore

@labcore.sampler(order=1, evals=1)
def right(process, score, x, ts, noise):
    """Euler."""
    v = labcore.velocity(process, score)
    for t, s in pairwise(ts):
        x = x + float(s - t) * v(t, x)
        yield x

@labcore.sampler(order=1, evals=1)
def wrong(process, score, x, ts, noise, *, said: str = "spoiled"):
    """Euler that raises."""
    raise ValueError(said)
    yield x

@labcore.sampler(order=1, evals=1)
def crashes(process, score, x, ts, noise):
    """Takes its process down."""
    os.kill(os.getpid(), 9)
    yield x

@labcore.sampler(order=1, evals=1)
def hangs(process, score, x, ts, noise):
    """Never ends."""
    while True:
        pass
    yield x
'''

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A battery of two checks, so that a certificate costs nothing."""
    two = {name: CHECKS[name] for name in ("pure", "yields")}
    for module in ("labcore.testing.sampler", "labcore.certification"):
        monkeypatch.setattr(f"{module}.CHECKS", two)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in a folder of its own: exit code, stdout, stderr."""
    (tmp_path / "my samplers.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return run


HERE = ("--workers", "0")


@pytest.mark.usefixtures("few")
def test_a_file_of_samplers_gets_a_verdict_each(command: Run) -> None:
    code, out, _ = command("check", "my samplers.py:right", "my samplers.py:wrong", *HERE, "-v")
    assert code == 1
    verdicts = [line for line in out.splitlines() if not line.startswith(" ")]
    assert verdicts[0].startswith("certified   local:right on linear:vp, ")
    assert verdicts[1].startswith("‡ failed    local:wrong(said=spoiled) on linear:vp, ")
    assert "pure: it raised ValueError: spoiled" in verdicts[1]
    assert verdicts[2] == "1 certified, 1 failed; store out/certificates.sqlite"
    assert "    passed   pure " in out
    code, out, _ = command("check", "my samplers.py:right", *HERE)
    assert code == 0
    code, out, _ = command("certificates")
    assert code == 0
    assert [line.split("│")[1].strip() for line in out.splitlines() if "local:" in line] == [
        "certified",
        "‡ failed",
    ]


@pytest.mark.usefixtures("few")
def test_certificates_are_shown_in_full_as_json_as_markdown_and_as_pages(command: Run) -> None:
    code, out, _ = command("check", "my samplers.py:right", "ddim", *HERE, "--json")
    assert code == 0
    made = [json.loads(line) for line in out.splitlines()]
    assert {m["sampler"] for m in made} == {"local:right", "samplers:ddim"}
    assert all([c["name"] for c in m["checks"]] == ["pure", "yields"] for m in made)
    key = next(c.key for c in held() if c.sampler == "local:right")
    for name in ("right", "local:right", key[:8]):
        code, out, _ = command("certificates", name)
        assert (code, out.count("certified   local:right")) == (0, 1)
        assert "ddim" not in out
    assert "made with  labcore" in out
    assert command("certificates", "--json")[1].count("\n") == 2
    assert command("certificates", "--markdown")[1].startswith("| certificate | sampler |")
    assert "# Certificate of local:right on" in command("certificates", "right", "--markdown")[1]
    code, out, _ = command("certificates", "--page", "pages")
    assert code == 0
    assert all(Path(line).is_file() for line in out.splitlines())
    assert {Path(line).suffix for line in out.splitlines()} == {".html", ".md"}


def held(path: str = "out/certificates.sqlite") -> list[Certificate]:
    with open_store(path) as store:
        return store.certificates()


@pytest.mark.usefixtures("few")
def test_each_process_has_a_certificate_and_each_version_of_a_file(command: Run) -> None:
    both = ("--process", "vp", "--process", "linear:edm(T=40.0)")
    assert command("check", "my samplers.py:right", *both, *HERE)[0] == 0
    assert [c.process for c in held()] == ["linear:edm(T=40)", "linear:vp"]
    Path("my samplers.py").write_text(SCRIPT + "\n# changed\n")
    assert command("check", "my samplers.py:right", *HERE)[0] == 0
    versions = [c.distribution for c in held() if c.process == "linear:vp"]
    assert len(set(versions)) == 2
    assert all(v.startswith("my samplers.py ") for v in versions)


@pytest.mark.usefixtures("few")
def test_what_a_sampler_needs_chooses_its_process_and_is_said(command: Run) -> None:
    code, out, err = command("check", "sscs", *HERE)
    assert code == 0
    assert "samplers:sscs on linear:cld" in out
    assert "samplers:sscs: on linear:cld, the first process that gives what it needs" in err
    code, out, err = command("check", "sscs", "ddim", "--process", "vp", *HERE)
    assert code == 0
    assert "not checked: samplers:sscs on linear:vp, which does not give channel" in err
    assert out.splitlines()[-1].startswith("1 certified, 0 failed")


@pytest.mark.usefixtures("few")
def test_escapes_in_what_a_sampler_says_do_not_reach_the_terminal(command: Run) -> None:
    evil = "said='\\x1b[31mred\\n\\x1b]0;title\\x07'"
    code, out, _ = command("check", "my samplers.py:wrong", "--option", evil, *HERE)
    assert code == 1
    shown = out + command("certificates")[1] + command("certificates", "wrong")[1]
    assert "red" in shown
    assert not {"\x1b", "\x07"} & {*shown}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a sampler or a file, or give --all or --plugin"),
        (["ddmi"], "did you mean"),
        (["nowhere.py"], "there is no such file"),
        (["my samplers.py:rihgt"], "no sampler 'rihgt' in it; it has right, wrong"),
        (["ddim", "--option", "lam=1"], "no option 'lam'"),
        (["ddim", "--option", "eta"], "write name=value"),
        (["ddim(eta=)"], "cannot be read"),
        (["ddim", "--process", "vpp"], "did you mean linear:vp"),
        (["ddim", "--checks", "ordr"], "no check ordr; there are pure"),
        (["ddim", "--checks", "order", "--store", "x"], "a part of the battery"),
        (
            ["ddim", "--process", "vp", "--process", "vp(b1=-3)"],
            "process 'vp': b0=0.1 and b1=-3.0",
        ),
        (["sscs", "--process", "vp"], "it needs channel, which process 'linear:vp'"),
        (["--plugin", "metrics"], "it registers no sampler"),
        (["--plugin", "nope"], "not installed"),
        (["ddim", "--workers", "0", "--timeout", "3"], "this process cannot stop itself"),
    ],
)
def test_bad_usage_leaves_with_two_and_no_store(
    command: Run, arguments: list[str], said: str
) -> None:
    code, out, err = command("check", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in out + err
    assert not Path("out/certificates.sqlite").exists()


def test_a_script_that_cannot_be_run_or_holds_no_sampler_leaves_with_two(command: Run) -> None:
    Path("bad.py").write_text("raise RuntimeError('no')")
    Path("none.py").write_text("x = 1")
    Path("away.py").write_text("import os\nos.chdir('/')\n1 / 0")
    home = Path.cwd()
    assert "'away.py', line 3: ZeroDivisionError" in command("check", "away.py")[2]
    os.chdir(home)
    assert (
        "file 'bad.py', line 1: RuntimeError: no; mend the script" in command("check", "bad.py")[2]
    )
    code, _, err = command("check", "none.py")
    assert code == 2
    assert "it defines no sampler; decorate it @labcore.sampler" in err


def test_stores_that_are_none_leave_with_three_and_unknown_names_with_two(command: Run) -> None:
    code, _, err = command("certificates")
    assert (code, "labcore check SAMPLER makes one" in err) == (3, True)
    Path("bad").write_bytes(b"nonsense" * 1000)
    assert command("certificates", "--store", "bad")[0] == 3
    with open_store("empty.sqlite", write=True):
        pass
    code, _, err = command("certificates", "--store", "empty.sqlite")
    assert (code, "labcore check SAMPLER makes one" in err) == (0, True)
    code, _, err = command("certificates", "heun", "--store", "empty.sqlite")
    assert (code, "make it: labcore check heun" in err) == (2, True)


def test_a_part_of_the_battery_is_told_and_not_kept(command: Run) -> None:
    code, out, _ = command("check", "my samplers.py:right", "--checks", "pure", *HERE)
    assert code == 0
    assert out.startswith("passed      local:right")
    assert out.splitlines()[-1] == "1 passed, 0 failed; a part of the battery, nothing is stored"
    assert not Path("out/certificates.sqlite").exists()


def test_what_hangs_or_takes_its_process_down_has_a_verdict_and_others_go_on(
    command: Run,
) -> None:
    some = ("--workers", "2", "--timeout", "8", "--checks", "pure", "--page", "pages")
    code, out, _ = command("check", "my samplers.py", *some)
    assert code == 1
    verdict = {line.split(" on ")[0].split()[-1]: line for line in out.splitlines()[:4]}
    assert verdict["local:right"].startswith("passed")
    assert "no verdict (timeout): ran longer than 8 s" in verdict["local:hangs"]
    assert "no verdict (killed)" in verdict["local:crashes"]
    assert "raised ValueError: spoiled" in verdict["local:wrong(said=spoiled)"]
    assert len(list(Path("pages").glob("*.html"))) == 5


@pytest.mark.usefixtures("few")
def test_what_came_to_no_verdict_leaves_the_certificate_that_was_there(command: Run) -> None:
    """Stopped, or its worker gone: that says nothing of the sampler, and nothing of its rows."""
    assert command("check", "ddim", *HERE)[0] == 0
    before = held()
    code, out, _ = command("check", "ddim", "--workers", "1", "--timeout", "0.1")
    assert code == 1
    assert "battery: no verdict (timeout): ran longer than 0.1 s" in out
    ended = "0 certified, 1 failed, 1 of them without a verdict, which is not kept; store "
    assert out.splitlines()[-1].startswith(ended)
    assert held() == before
    code, out, _ = command("check", "my samplers.py:crashes", "--workers", "1")
    assert (code, "no verdict (killed)" in out) == (1, True)
    assert held() == before


@pytest.mark.usefixtures("few")
def test_a_process_named_twice_is_checked_on_once(command: Run) -> None:
    both = ("--process", "vp", "--process", "linear:vp(b1=20)")
    code, out, _ = command("check", "ddim", *both, *HERE)
    assert (code, out.splitlines()[-1].partition(";")[0]) == (0, "1 certified, 0 failed")
    assert len(labcore.certify(["ddim", "samplers:ddim"], ["vp", "vp"])) == 1


@pytest.mark.usefixtures("few")
def test_certify_builds_processes_before_it_checks(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="process 'vp': b0"):
        labcore.certify("ddim", ["vp", use("vp", b1=-3.0)], store=tmp_path / "s.sqlite")
    assert not (tmp_path / "s.sqlite").exists()


def test_an_interrupt_leaves_what_was_made_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    running = subprocess.Popen(
        [sys.executable, "-m", "labcore", "check", "s.py:right", "s.py:hangs", *HERE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert "local:right" in first
    assert running.returncode == 130
    assert "interrupted" in err
    assert [c.sampler for c in held(str(tmp_path / "out/certificates.sqlite"))] == ["local:right"]


@pytest.mark.usefixtures("few")
def test_a_study_certifies_what_its_store_lacks_and_its_rows_say_so(tmp_path: Path) -> None:
    study, path = toy_lab.study(seed=[0], steps=[4], metrics=["toy_mean"]), tmp_path / "s.sqlite"
    lab.run_study(study, path)
    with open_store(path) as store:
        assert set(store.frame()["certificate"]) == {"uncertified", ""}
    seen: list[str] = []
    made = lab.certify_study(study, path, follow=lambda c: seen.append(c.sampler))
    assert sorted(seen) == sorted(c.sampler for c in made) == ["local:toy_em", "local:toy_heun"]
    assert {c.process for c in made} == {"local:toy_vp"}
    assert lab.certify_study(study, path) == []
    more = toy_lab.study(seed=[0], steps=[4], process=use("toy_vp", b1=10.0))
    assert {c.process for c in lab.certify_study(more, path)} == {"local:toy_vp(b1=10)"}
    with open_store(path) as store:
        frame = store.frame()
        assert len(store.certificates()) == 4
    assert set(frame["certificate"][frame["kind"] == "cell"]) == {"certified"}


STUDY = """
import labcore
from labcore import use

study = labcore.Study(
    name="small", question="is it certified?", target=use("gmm_ring"), process=use("vp"),
    grid=use("quadratic"), sampler=["ddim", "samplers:euler"], steps=[2, 4], n=20,
    metrics=["sliced_w2"], floor_repeats=2,
)
"""


@pytest.mark.usefixtures("few")
def test_run_certifies_first_where_asked_and_results_and_plots_say_so(command: Run) -> None:
    Path("study.py").write_text(STUDY)
    quiet = ("--reporter", "quiet", "--store", "s.sqlite")
    code, out, _ = command("run", "study.py", *quiet)
    assert (code, "certificates" in out) == (0, False)
    assert command("results", "s.sqlite")[1].count("† uncertified") == 4
    code, out, err = command("run", "study.py", "--certify", "--filter", "sampler=ddim", *quiet)
    assert code == 0
    assert "small: 1 certificates made, 0 failed" in out
    assert "certified   samplers:ddim(eta=0.0) on linear:vp" in err
    table = command("results", "s.sqlite")[1]
    assert (table.count("† uncertified"), table.count("│ certified")) == (2, 2)
    assert command("results", "s.sqlite", "--csv", "rows.csv")[0] == 0
    assert "uncertified" in Path("rows.csv").read_text()
    assert command("plot", "s.sqlite", "--out", "p", "--kind", "curve", "--format", "svg")[0] == 0


@pytest.mark.usefixtures("few")
def test_a_certificate_of_a_smaller_battery_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, path = toy_lab.study(seed=[0], steps=[4], sampler="toy_em"), tmp_path / "s.sqlite"
    assert len(lab.certify_study(study, path)) == 1
    three = {name: CHECKS[name] for name in ("pure", "yields", "times")}
    for module in ("labcore.testing.sampler", "labcore.certification"):
        monkeypatch.setattr(f"{module}.CHECKS", three)
    (again,) = lab.certify_study(study, path)
    assert [check.name for check in again.checks] == list(three)
    assert len(held(str(path))) == 1


@pytest.mark.usefixtures("few")
def test_certify_is_a_function_too(tmp_path: Path) -> None:
    (one,) = labcore.certify("ddim")
    assert (one.sampler, one.process, one.state) == ("samplers:ddim", "linear:vp", "certified")
    assert one.distribution == f"labcore {labcore.__version__}"
    path = tmp_path / "s.sqlite"
    made = labcore.certify([use("ddim", eta=1.0)], ["vp", "edm"], store=path, checks=())
    assert {c.key for c in made} == {c.key for c in held(str(path))}
    assert len(made) == 2
    with pytest.raises(InvalidOption, match="it needs channel"):
        labcore.certify("sscs", "vp")
    with pytest.raises(UnknownName):
        labcore.certify("nope")
    with pytest.raises(InvalidOption, match="no check ordr; there are pure"):
        labcore.certify("ddim", checks=["ordr"])
    with pytest.raises(InvalidOption, match="a part of the battery certifies nothing"):
        labcore.certify("ddim", checks=["pure"], store=path)


def test_a_need_that_no_process_meets_is_an_error_in_words() -> None:
    @labcore.sampler(needs=("telepathy",))
    def odd(process, score, x, ts, noise):  # type: ignore[no-untyped-def]
        yield x

    registry = labcore.load_registry([odd])
    with pytest.raises(InvalidOption, match="needs telepathy, which no registered process gives"):
        default_process(registry, use("odd").resolve("sampler", registry))
