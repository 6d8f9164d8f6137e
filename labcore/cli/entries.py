"""``labcore list KIND`` and ``labcore show NAME``: what is in the box."""

from __future__ import annotations

from typing import Any, get_type_hints

import click
from annotated_types import BaseMetadata

KINDS = (
    "process",
    "target",
    "score",
    "network",
    "objective",
    "grid",
    "sampler",
    "metric",
    "reporter",
)
_PLURALS = {"processes": "process", "metrics": "metric", **{f"{k}s": k for k in KINDS}}


class Kind(click.Choice[str]):
    """A kind of entry, in the singular or the plural."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return super().convert(_PLURALS.get(value, value), param, ctx)


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from labcore.registry import load_registry

    registry = load_registry()
    names = [name for kind in KINDS for name, _ in registry.all(kind)]
    return sorted({n for n in names if n.startswith(incomplete)})


@click.command()
@click.argument("kind", type=Kind(KINDS))
@click.option("--markdown", is_flag=True, help="As a Markdown table with the sources.")
def list_command(kind: str, markdown: bool) -> None:
    """List the entries of one KIND with what they declare."""
    from labcore.cli import printable
    from labcore.registry import load_registry

    entries = load_registry().all(kind)
    if markdown:
        click.echo(markdown_table(kind, entries))
        return
    rows = [(name, *_facts(entry), entry.summary) for name, entry in entries]
    if not rows:
        click.echo(f"no {kind} is registered", err=True)
        return
    wide = max(len(row[0]) for row in rows)
    for name, facts, summary in rows:
        click.echo(printable(f"{name:<{wide}}  {facts}{'  ' if facts else ''}{summary}"))


def _facts(entry: Any) -> tuple[str]:
    """The declared facts of a sampler in fixed columns; nothing for other kinds."""
    if entry.kind != "sampler":
        return ("",)
    order, evals = entry.traits.get("order"), entry.traits.get("evals")
    kind = "SDE" if entry.traits.get("stochastic") else "ODE"
    cost = f"{evals} NFE/step" if evals else ("varies" if order else "adaptive")
    return (f"{kind}  order {order if order is not None else '-':<3}  {cost:<10}",)


def markdown_table(kind: str, entries: list[tuple[str, Any]]) -> str:
    """What is in the box, for a README: name, what it is, declared facts, source."""
    facts = {
        "sampler": {
            "order in law": lambda e: _order(e),
            "NFE per step": _cost,
        },
        "metric": {"sees": lambda e: e.traits.get("sees", "")},
    }.get(kind, {})
    cited = any(e.traits.get("cite") for _, e in entries)
    heads = [kind, "what it is", *facts, *(["source"] if cited else [])]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, entry in entries:
        cells = [f"`{name}`", entry.summary, *(fact(entry) for fact in facts.values())]
        cells += [entry.traits.get("cite", "")] if cited else []
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def _order(entry: Any) -> str:
    if "order" not in entry.traits:
        return "adaptive"
    order = entry.traits["order"]
    return "-" if order is None else str(order)


def _cost(entry: Any) -> str:
    evals, extra = entry.traits.get("evals"), entry.traits.get("extra", 0)
    if "nfe_of" in entry.traits:  # what a step costs late in a run, and what the first ones add
        many = [entry.nfe(steps, entry.bind({})) for steps in (999, 1000)]
        evals = many[1] - many[0]
        extra = many[1] - 1000 * evals
    if not evals:
        return "varies" if "order" in entry.traits else "by tolerance"
    options = ", by its options" if "evals_of" in entry.traits else ""
    return f"{evals}{options}" + (f", and {extra} more" if extra else "")


@click.command()
@click.argument("name", shell_complete=_names)
@click.option("--kind", type=Kind(KINDS), help="Which kind, where a name is of several.")
def show_command(name: str, kind: str | None) -> None:
    """Show an entry: its docstring, options, declared facts and source."""
    from labcore.cli import printable
    from labcore.registry import load_registry

    registry = load_registry()
    for kind_, entry in _find(registry, name, kind):
        click.echo(printable(_page(registry.qualified(kind_, name), kind_, entry)))


def _find(registry: Any, name: str, kind: str | None) -> list[tuple[str, Any]]:
    """The entries of that name; the error of the likeliest kind where there are none."""
    from difflib import get_close_matches

    from labcore.errors import UnknownName

    found, ambiguous = [], None
    for k in (kind,) if kind else KINDS:
        try:
            found.append((k, registry.get(k, name)))
        except UnknownName as error:
            ambiguous = error if "several" in str(error) else ambiguous
    if found:
        return found
    if ambiguous:
        raise ambiguous
    names = [n for k in KINDS for n, _ in registry.all(k)]
    short = [n.split(":")[1] for n in names]
    near = get_close_matches(name, list(dict.fromkeys([*names, *short])), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "see labcore list KIND"
    raise UnknownName(f"'{name}': nothing of that name is registered; {hint}")


def _page(qualified: str, kind: str, entry: Any) -> str:
    lines = [f"{qualified}  ({kind})", "", entry.doc or "no docstring", ""]
    traits = {"evals": "NFE per step", "order": "order in law"}
    for key, value in entry.traits.items():
        text = ", ".join(value) if isinstance(value, list | tuple | set | frozenset) else value
        if key == "nfe_of":
            key, text = "evals", ""
        if key in ("evals_of", "extra", "from_uses"):
            continue
        text = {"evals": _cost(entry), "order": _order(entry)}.get(key, text)
        lines.append(f"{traits.get(key, key):<14} {text}")
    if entry.parameters:
        lines += ["", "options:"]
    hints = get_type_hints(entry.fn, include_extras=True)
    for p in entry.parameters.values():
        default = "required" if p.default is p.empty else f"default {p.default!r}"
        lines.append(f"  {p.name}: {_type(hints.get(p.name, Any))}, {default}")
    return "\n".join(lines).rstrip() + "\n"


def _type(annotation: Any) -> str:
    """A type hint as it reads in code, with its bounds: int, float | None, int (Ge(ge=1))."""
    marks = getattr(annotation, "__metadata__", ())
    bounds = [m for mark in marks for m in getattr(mark, "metadata", [mark])]
    shown = [str(m) for m in bounds if isinstance(m, BaseMetadata)]
    if marks:
        return _type(annotation.__origin__) + (f" ({', '.join(shown)})" if shown else "")
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        return annotation.__name__
    return str(annotation).replace("typing.", "")
