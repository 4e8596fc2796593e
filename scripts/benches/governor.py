"""The governor in the arena: simulated devices through hard scenarios, scored against a bound that knows the future.

`--set production` takes the set of sites as a daemon meets them: 4 to 16 cameras in their own time, weights, vetoes, a
camera that drops out. There is no bound for it; the yardstick is the best fixed (engine, clock, share of the frames)
with hindsight, whose scores are in `data/`, and the baselines run beside it. `--guess`: without a device profile, where
a daemon has warm latencies and the list of clocks alone; the same governor with a profile runs beside it, and what both
reach after the first 120 s is compared.
`--scenarios FILE` takes other scenarios, `--bounds FILE` their bounds ({"NAME:SEED": {"REG": score}}), `--policy NAME`
one baseline in the governor's place, `--results FILE` appends a line as each run ends. `data/governor_holdout_*.json`
is another set, of other devices and shapes. `--fixed-clock` holds the clock at its highest, and then the bound is that
of a clock so held ("FIX"), where there is one: the highest clock alone may draw more than a scenario allows. Then the
cost on this machine: one choice with four variants and eight cameras, one plan, and what the state has grown by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from time import thread_time_ns
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from edged.clock import NS_PER_MS
from edged.errors import UsageError
from edged.governor.governor import Governor
from edged.governor.messages import BatchDone, Budget, Device, Sensed, Tick, Variant, Waiting, Workload
from edged.simulate.arena import Policy, run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from edged.simulate.score import SETTLED_S, Score
from edged.simulate.tables import ENGINES
from scripts.benches.baselines import FP16, SPARSE, Alert, Contrast, Fixed, Hysteresis, RaceToIdle, Static
from scripts.benches.report import Figure, Report

DATA = Path(__file__).parent / "data"
POLICIES: Mapping[str, Callable[[], Policy]] = {
    "edged": GovernorPolicy,
    "static-fp16": lambda: Static(FP16),
    "static-sparse": lambda: Static(SPARSE),
    "contrast": Contrast,
    "hysteresis": Hysteresis,
    "race-to-idle": RaceToIdle,
    "alert": Alert,
}
BESIDE = ("static-fp16", "static-sparse", "hysteresis", "alert")
SHARES = (1.0, 0.75, 0.5, 0.25)
MEAN_SHARE, WORST_SHARE = 0.978, 0.93
GUESS_SHARE, SETTLED_SHARE = 0.95, 0.99
POWER_VIOLATION, LATE = 0.001, 0.01
CHOICE_US, EACH_US, PLAN_MS = 50.0, 70.0, 10.0
POSSIBLE = 0.5
"""A clock held at its highest is judged where its bound is at least this share of that of a free clock: below, hardly
any frame can run within the limits, whoever decides."""
QUICK = 2
CAMERAS = tuple(f"camera-{i}" for i in range(8))
WEIGHTS = (1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 3.0, 1.0)


class ArenaReport(Report):
    """With a line for each scenario."""

    def show(self) -> None:
        scenarios = self.notes.pop("scenarios")
        table = Table("scenario", "share", "score", "late%", "power%", "heat%", "thr.%", "changes")
        table.columns[0].no_wrap = True
        for column in table.columns[1:]:
            column.justify = "right"
        for key, r in scenarios.items():
            share = "" if r["share"] is None else f"{r['share']:.4f}"
            percent = [f"{100 * r[x]:.2f}" for x in ("late", "power_violation", "heat_violation", "throttled")]
            table.add_row(key, share, f"{r['score']:.0f}", *percent, str(r["engine_changes"]))
        Console().print(table)
        super().show()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("governor")
    group.add_argument("--set", choices=("public", "production"), default="public", help="which shipped scenarios")
    group.add_argument("--guess", action="store_true", help="without a device profile, from what a daemon assumes")
    group.add_argument("--scenarios", type=Path, metavar="FILE", help="scenarios in JSON; else the shipped ones")
    group.add_argument("--bounds", type=Path, metavar="FILE", help="their bounds in JSON")
    group.add_argument("--policy", choices=POLICIES, default="edged", help="who decides; edged if not given")
    group.add_argument("--fixed-clock", action="store_true", help="hold the clock at its highest")
    group.add_argument("--results", type=Path, metavar="FILE", help="append each run's result as it ends")


def measure(
    quick: bool = False,
    set: str = "public",
    guess: bool = False,
    scenarios: Path | None = None,
    bounds: Path | None = None,
    policy: str = "edged",
    fixed_clock: bool = False,
    results: Path | None = None,
) -> Report:
    production = set == "production" and scenarios is None
    shipped = "governor_production" if production else "governor"
    known = read(bounds or DATA / f"{shipped}_bounds.json") if bounds or scenarios is None else {}
    chosen = read(scenarios or DATA / f"{shipped}_scenarios.json")[: QUICK if quick else None]
    report = ArenaReport("governor")

    def make() -> Policy:
        if policy == "edged":
            return GovernorPolicy(fixed_clock, profiled=not guess)
        return POLICIES[policy]()

    scores = run_all(chosen, make, policy, fixed_clock, results)
    if production:
        compare(report, chosen, scores, known)
    else:
        bounds_of = {key: bound for key in scores if (bound := bound_of(known.get(key, {}), fixed_clock))}
        judge(report, scores, bounds_of, GUESS_SHARE if guess else MEAN_SHARE)
    if guess:
        settle(report, chosen, scores, known, fixed_clock)
    if policy == "edged":
        cost(report)
    report.notes["policy"] = policy + (", no profile" if guess else "") + (", clock held" if fixed_clock else "")
    return report


def run_all(
    scenarios: Sequence[Mapping[str, Any]],
    make: Callable[[], Policy],
    name: str,
    fixed_clock: bool = False,
    file: Path | None = None,
) -> dict[str, Score]:
    runs = [(scenario, seed) for scenario in scenarios for seed in scenario.get("seeds", [1])]
    found = {}
    for scenario, seed in track(runs, console=Console(stderr=True), description=name, transient=True):
        key = f"{scenario['name']}:{seed}"
        found[key] = run(Truth(scenario, seed), make(), fixed_clock)
        if file is not None:
            with file.open("a") as lines:
                lines.write(json.dumps({"run": key, "policy": name, **asdict(found[key])}, default=float) + "\n")
    return found


def compare(
    report: ArenaReport,
    scenarios: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Score],
    known: Mapping[str, Mapping[str, float]],
) -> None:
    """The production set: against the best fixed choice with hindsight, and the baselines beside it."""
    judge(report, scores, {key: known[key]["HINDSIGHT"] for key in scores if key in known}, 1.0, 1.0)
    for name in BESIDE:
        others = run_all(scenarios, POLICIES[name], name)
        share = mean(others[key].score / known[key]["HINDSIGHT"] for key in scores)
        report.notes[f"{name}, mean share"] = round(share, 3)


def settle(
    report: ArenaReport,
    scenarios: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Score],
    known: Mapping[str, Mapping[str, float | None]],
    fixed_clock: bool,
) -> None:
    """What was reached after the first SETTLED_S against the same governor with a device profile, where frames can run
    at all."""
    judged = {key for key in scores if bound_of(known.get(key, {}), fixed_clock)}
    profiled = run_all(scenarios, lambda: GovernorPolicy(fixed_clock), "with a profile", fixed_clock)
    ratios = [scores[key].settled / profiled[key].settled for key in scores if key in judged]
    if ratios:
        name, spread = f"after {SETTLED_S} s, against the same with a profile", (min(ratios), max(ratios))
        report.figures.append(Figure(name, mean(ratios), "", SETTLED_SHARE, "at least", spread))


def hindsight(scenario: Mapping[str, Any], seed: int) -> float:
    """The best score of any fixed engine, clock and share of the frames. Long: some hundred runs."""
    truth = Truth(scenario, seed)
    choices = [
        (engine, clock, share)
        for engine in range(len(ENGINES))
        if truth.available[engine]
        for clock in range(len(truth.idle_w))
        for share in SHARES
    ]
    return max(float(run(Truth(scenario, seed), Fixed(*choice)).score) for choice in choices)


def read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}", "give a file in the arena's format") from error


def bound_of(known: Mapping[str, float | None], fixed_clock: bool) -> float | None:
    """What a policy that knows the future reaches; None where that is unknown or next to nothing."""
    free, held = known.get("REG"), known.get("FIX")
    if not fixed_clock:
        return free
    return held if held and free and held >= POSSIBLE * free else None


def judge(
    report: Report,
    results: Mapping[str, Score],
    bounds: Mapping[str, float],
    mean_share: float = MEAN_SHARE,
    worst_share: float = WORST_SHARE,
) -> None:
    """Violations are judged where there is a bound, or everywhere without any: else none could avoid them."""
    shares = {key: results[key].score / bounds[key] for key in results if key in bounds}
    judged = [r for key, r in results.items() if key in shares or not shares]
    if shares:
        low, high = min(shares.values()), max(shares.values())
        report.figures.append(
            Figure("mean share of the bound", mean(shares.values()), "", mean_share, "at least", (low, high))
        )
        report.figures.append(Figure("worst share of the bound", low, "", worst_share, "at least"))
    over = max(r.power_violation for r in judged)
    report.figures.append(Figure("seconds above the power window, worst", 100 * over, "%", 100 * POWER_VIOLATION))
    report.figures.append(Figure("late frames, worst", 100 * max(r.late for r in judged), "%", 100 * LATE))
    hot = max(r.heat_violation for r in judged)
    report.figures.append(Figure("seconds above the temperature limit, worst", 100 * hot, "%", 0.0))
    report.figures.append(Figure("hardware throttles", sum(r.throttles for r in judged), "", 0.0))
    report.notes["scenarios"] = {
        key: {
            "share": shares.get(key),
            "score": r.score,
            "late": r.late,
            "power_violation": r.power_violation,
            "heat_violation": r.heat_violation,
            "throttled": r.throttled,
            "engine_changes": r.engine_changes,
        }
        for key, r in results.items()
    }


def cost(report: Report) -> None:
    """CPU time of this thread, warm: four variants, eight cameras, all budgets, a free clock."""
    variants = [
        Variant(name, 0.8 - 0.02 * i, tuple(ms * k**0.85 for k in range(1, 9)), (2.0, 1.4, 1.0), (4.0, 6.0, 12.0))
        for i, (name, ms) in enumerate([("fp16", 12.0), ("int8", 8.0), ("int8-sparse", 6.0), ("lite", 4.0)])
    ]
    budget = Budget(120.0, 0.99, 0.0, 12.0, 30.0, temperature_c=85.0)
    governor = Governor(variants, budget, 0, Device((4.6, 5.2, 5.9), fixed_clock=False))
    governor.observe(Workload(8, 80.0), 0)
    choices_us, plans_ms, runs_us, sizes = [], [], [], []
    for i in range(6000):
        now_ns = i * 100 * NS_PER_MS
        if i % 5 == 0:
            governor.observe(Sensed(power_w=9.0, temperature_c=60.0, clock=0), now_ns)
            begun = thread_time_ns()
            governor.observe(Tick(), now_ns)
            plans_ms.append((thread_time_ns() - begun) / 1e6)
        waiting = Waiting(8, 3.0, WEIGHTS, CAMERAS, "int8", 0)
        begun = thread_time_ns()
        choice = governor.choose(waiting, now_ns)
        choices_us.append((thread_time_ns() - begun) / 1000)
        done = BatchDone(choice.variant or "int8", max(1, choice.frames), 60.0 + i % 7, 3.0, 0, 0)
        begun = thread_time_ns()
        governor.observe(done, now_ns + 60 * NS_PER_MS)
        runs_us.append((thread_time_ns() - begun) / 1000)
        if i in (1000, 5999):
            sizes.append(len(repr(governor.state)))
    spread = sorted(choices_us)
    each_us = median(choices_us) + median(runs_us)
    report.figures += [
        Figure(
            "one choice, 4 variants, 8 cameras",
            median(choices_us),
            "us",
            CHOICE_US,
            "at most",
            (spread[60], spread[-60]),
        ),
        Figure("one choice and what is learnt from its result", each_us, "us", EACH_US),
        Figure("one plan, twice a second", median(plans_ms), "ms", PLAN_MS),
        Figure("growth of the state over ten minutes", max(0, sizes[1] / sizes[0] - 1.05), "", 0.0),
        Figure("share of a core at 30 frames/s", 100 * (30 * each_us / 1e6 + 2 * median(plans_ms) / 1e3), "%", 3.0),
    ]
