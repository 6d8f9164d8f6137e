"""What a run costs over its floor, and beside the best run of the same method.

Times are kept by the name of the piece of work that took them; a cost is a sum of such pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Sum = Mapping[str, float]
"""How often each piece of the measured work goes into a sum of times."""


@dataclass(frozen=True)
class Cost:
    """A run, its floor and the floor of ours; ``size`` counts the calls and draws of these."""

    who: str
    run: Sum
    floor: Sum
    unit: Sum
    size: int
    same: tuple[str, ...] = ()
    bound: bool = False

    def ratio(self, times: Sum) -> float:
        run, floor, unit = (
            sum(often * times[name] for name, often in parts.items())
            for parts in (self.run, self.floor, self.unit)
        )
        return 1 + (run - floor) / unit

    def beyond(self, short: "Cost") -> "Cost":
        """What this run costs more than a shorter one; that one, where this is hardly longer."""

        def less(a: Sum, b: Sum) -> Sum:
            return {name: a.get(name, 0) - b.get(name, 0) for name in {**a, **b}}

        if self.size < 1.5 * short.size:
            return short
        more = (
            less(self.run, short.run),
            less(self.floor, short.floor),
            less(self.unit, short.unit),
        )
        size = self.size - short.size
        return replace(self, run=more[0], floor=more[1], unit=more[2], size=size)


@dataclass(frozen=True)
class Costs:
    """Of a run, and of what more steps add to it."""

    run: Cost
    step: Cost


@dataclass(frozen=True)
class Beside:
    """A sampler, the runs of the same method that it is held to, and bounds for it."""

    ours: Costs
    rivals: Sequence[Costs]
    bounds: Sequence[Costs]

    @classmethod
    def of(cls, ours: Costs, theirs: Sequence[Costs]) -> "Beside":
        same = [peer for peer in theirs if ours.run.who in peer.run.same]
        bounds = [peer for peer in same if peer.run.bound]
        return cls(ours, [peer for peer in same if not peer.run.bound], bounds)

    @property
    def who(self) -> str:
        return self.ours.run.who

    def pieces(self) -> list[str]:
        """The work that its figures are made of."""
        costs = [
            c for each in (self.ours, *self.rivals, *self.bounds) for c in (each.run, each.step)
        ]
        names = (name for c in costs for part in (c.run, c.floor, c.unit) for name in part)
        return list(dict.fromkeys(names))

    def share(self, times: Sum) -> float:
        """Our overhead of a step over the least of the rivals'."""
        return _part(self.ours.step, [rival.step for rival in self.rivals], times)

    def share_of_a_run(self, times: Sum) -> float:
        return _part(self.ours.run, [rival.run for rival in self.rivals], times)

    def share_of_bounds(self, times: Sum) -> float:
        return _part(self.ours.step, [bound.step for bound in self.bounds], times)


def _part(ours: Cost, theirs: Sequence[Cost], times: Sum) -> float:
    """Without end where theirs is lost in the noise of its floor."""
    least = min(cost.ratio(times) for cost in theirs) - 1
    return (ours.ratio(times) - 1) / least if least > 0 else float("inf")
