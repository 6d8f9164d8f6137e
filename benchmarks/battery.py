"""Power and false alarms of the battery of checks: docs/battery.md.

    python benchmarks/battery.py [--runs 200] [--workers 2] [--log FILE] [--only NAME ...]

Power: every fault of tests/zoo, on the processes that show it with parameters, data, starts and
(where the process leaves it open) dimension 2 to 5 at random, must fail the check named for it.
False alarms: correct samplers, of tests/zoo and of the lab, on all processes, likewise drawn,
in dimension 1 too, must fail no check of the whole battery. Intervals are exact binomial ones.
Finished runs are lines of the log, and are not run again; --only names faults, or "correct".
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

OURS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("euler", {}), ("heun", {}), ("rk4", {}), ("lms3", {}), ("ddim", {}), ("ddim", {"eta": 1.0}),
    ("dpmpp_2m", {}), ("deis_tab2", {}), ("unipc_2", {}), ("euler_maruyama", {}),
    ("ancestral", {}),
    ("stochastic_heun", {}), ("sra1", {}), ("sde_dpmpp_2m", {}),
)  # fmt: skip
"""Samplers of the lab's own that run beside the zoo's twins, with their options."""


def subjects() -> list[tuple[str, dict[str, Any]]]:
    from zoo import TWINS

    return [(f"zoo:{name}", {}) for name in TWINS] + [
        (f"samplers:{name}", options) for name, options in OURS
    ]


def power(name: str, k: int) -> dict[str, Any]:
    """One run of a fault: whether its check failed, and what it said where it did not."""
    from zoo import FAINT, ZOO
    from zoo.worlds import drawn

    from labcore.testing import check_sampler

    of = {**ZOO, **FAINT}[name]
    g = np.random.default_rng([k, *map(ord, name)])
    on = of.on[k % len(of.on)]
    seed = int(g.integers(2**20))
    made = check_sampler(
        of.fault, drawn(on, g, least=2), checks=[of.caught_by], on_fail="return", seed=seed
    )
    found = "" if made.failed else made.checks[0].found
    return {"found": bool(made.failed), "process": on, "seed": seed, "said": found}


def alarm(k: int) -> dict[str, Any]:
    """The whole battery on a correct sampler and a process, both by turns."""
    from zoo import TWINS
    from zoo.worlds import PROCESSES, drawn

    import labcore
    from labcore.testing import check_sampler

    g = np.random.default_rng([1, k])
    on = list(PROCESSES)[k % len(PROCESSES)]
    process = drawn(on, g)
    chosen = [
        (name, entry, options)
        for name, options in subjects()
        for entry in [_entry(labcore.load_registry(), TWINS, name)]
        if process.structure == "scalar" or "scalar" not in entry.needs
    ]
    if process.structure != "scalar":  # the twin is for operators that commute, rotated too
        chosen = [c for c in chosen if c[0] != "zoo:ddim"]
    name, entry, options = chosen[int(g.integers(len(chosen)))]
    seed = int(g.integers(2**20))
    made = check_sampler(entry, process, options=options, on_fail="return", seed=seed)
    failed = {check.name: check.found for check in made.failed}
    return {"sampler": name, "process": on, "seed": seed, "failed": failed}


def _entry(registry: Any, twins: Any, name: str) -> Any:
    plugin, _, short = name.partition(":")
    return twins[short] if plugin == "zoo" else registry.get("sampler", name)


def work(task: tuple[str, int]) -> dict[str, Any]:
    import torch

    from labcore.guards import undisturbed

    torch.set_num_threads(1)
    name, k = task
    try:
        with undisturbed():
            made = alarm(k) if name == "" else power(name, k)
    except Exception as error:  # a sampler's fault may break more than its check
        made = {"failed": {"raised": repr(error)}, "found": False, "said": repr(error)}
    return {"name": name, "k": k, **made}


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval of a share."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def done(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def report(rows: list[dict[str, Any]]) -> str:
    """The page: faults found, correct samplers failed, and faults that are seen at times."""
    from zoo import FAINT, ZOO

    said = (__doc__ or "").split("\n\n")[2]
    lines = [
        "# Power and false alarms of the battery",
        "",
        "Made by `python benchmarks/battery.py`.",
        "",
    ]
    lines += [said, "", f"## {len(ZOO)} faults", "", *table(ZOO, rows), "", "## False alarms", ""]
    runs = [r for r in rows if r["name"] == ""]
    bad = [r for r in runs if r["failed"]]
    low, high = interval(len(bad), len(runs))
    lines.append(
        f"{len(bad)} of {len(runs)} runs of the whole battery on correct samplers failed a check "
        f"({low:.3f} to {high:.3f})."
    )
    if bad:
        lines += [
            "",
            "| sampler | process | seed | check | what it said |",
            "|---|---|---|---|---|",
        ]
    for r in bad:
        for check, told in r["failed"].items():
            about = f"{r.get('sampler')} | {r.get('process')} | {r.get('seed')}"
            lines.append(f"| {about} | {check} | {told.replace('|', '')} |")
    lines += ["", "## Faults that are seen at times, or not", "", *table(FAINT, rows)]
    return "\n".join(lines) + "\n"


def table(faults: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| fault | of | processes | caught by | found | 95% |", "|---|---|---|---|---|---|"]
    for name, of in faults.items():
        runs = [r for r in rows if r["name"] == name]
        hits = sum(r["found"] for r in runs)
        low, high = interval(hits, len(runs))
        bold = "" if hits == len(runs) else "**"
        lines.append(
            f"| {name} | {of.twin.name} | {', '.join(of.on)} | {of.caught_by} "
            f"| {bold}{hits}/{len(runs)}{bold} | {low:.3f} to {high:.3f} |"
        )
    return lines


def main() -> None:
    from zoo import FAINT, ZOO

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--page", default="docs/battery.md")
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--only", nargs="+", default=("correct", *ZOO, *FAINT))
    options.add_argument("--log", type=Path, default=Path("out/battery.jsonl"))
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    given.log.parent.mkdir(parents=True, exist_ok=True)
    there = {(r["name"], r["k"]) for r in done(given.log)}
    names = ["" if name == "correct" else name for name in given.only]
    tasks = [(name, k) for k in range(given.runs) for name in names]
    with (
        ProcessPoolExecutor(given.workers) as pool,
        given.log.open("a") as log,
    ):
        futures = [pool.submit(work, task) for task in tasks if task not in there]
        for i, future in enumerate(as_completed(futures)):
            log.write(json.dumps(future.result()) + "\n")
            log.flush()
            print(f"\r{i + 1}/{len(futures)}", end="", file=sys.stderr)
    rows = [r for r in done(given.log) if r["k"] < given.runs]
    Path(given.page).write_text(report(rows))


if __name__ == "__main__":
    main()
