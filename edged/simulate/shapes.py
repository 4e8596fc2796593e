"""How a quantity goes over time in a scenario: a number or a shape from JSON in, an array out. Pure.

Shapes: steps, ramp, sine, saw, square, markov (levels with mean stays), walk (a bounded random walk), sun (a half-sine
day with clouds that come and go); a list is their sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def shape(spec: Any, t: Array, rng: np.random.Generator) -> Array:
    """`spec` evaluated at the times `t` (evenly spaced seconds).

    ValueError, KeyError, TypeError, IndexError or OverflowError for what is no shape; numbers that make no sense may
    give NaN.
    """
    if isinstance(spec, int | float):
        return np.full(t.shape, float(spec))
    if isinstance(spec, list) and spec:
        return np.asarray(np.sum([shape(part, t, rng) for part in spec], axis=0))
    if not isinstance(spec, dict):
        raise ValueError("expected a number, a table with k, or a list of these")
    if not spec.get("p", 1) > 0:
        raise ValueError("its period p must be above 0")
    kind = spec.get("k")
    drawn = _steady(kind, spec, t)
    if drawn is not None:
        return drawn
    if kind == "markov":
        return _markov(spec["v"], spec["d"], int(spec.get("s0", 0)), t, rng)
    if kind == "walk":
        return _walk(spec, t, rng)
    if kind == "sun":
        return _sun(spec, t, rng)
    raise ValueError(f"k is {str(kind)[:40]!r}, expected steps, ramp, sine, saw, square, markov, walk or sun")


def _steady(kind: object, spec: Any, t: Array) -> Array | None:
    """The shapes without chance."""
    if kind in ("steps", "ramp") and sorted(spec["t"]) != spec["t"]:
        raise ValueError("its times t must go up")
    if kind == "steps":
        out = np.full(t.shape, float(spec["v"][0]))
        for at, value in zip(spec["t"], spec["v"][1:], strict=True):
            out[t >= at] = value
        return out
    if kind == "ramp":
        return np.asarray(np.interp(t, spec["t"], spec["v"]))
    if kind == "sine":
        return np.asarray(spec["m"] + spec["a"] * np.sin(2 * np.pi * (t / spec["p"] + spec.get("ph", 0.0))))
    if kind == "saw":
        return np.asarray(spec["lo"] + (spec["hi"] - spec["lo"]) * ((t / spec["p"]) % 1.0))
    if kind == "square":
        high = ((t / spec["p"]) + spec.get("ph", 0.0)) % 1.0 < spec.get("duty", 0.5)
        return np.where(high, float(spec["hi"]), float(spec["lo"]))
    return None


def _markov(levels: list[float], stays_s: list[float], state: int, t: Array, rng: np.random.Generator) -> Array:
    out = np.empty(t.shape)
    at, step_s = 0, t[1] - t[0]
    if len(levels) < 2 or len(levels) != len(stays_s):
        raise ValueError("it takes two levels v or more, and for each the mean stay d in seconds")
    while at < len(t):
        n = max(1, int(rng.exponential(stays_s[state]) / step_s))
        out[at : at + n] = levels[state]
        at += n
        others = [j for j in range(len(levels)) if j != state]
        state = int(others[rng.integers(len(others))])
    return out


def _walk(spec: Any, t: Array, rng: np.random.Generator) -> Array:
    """Reflected at its bounds."""
    x = spec["m"] + np.cumsum(rng.normal(0, spec["s"] * math.sqrt(t[1] - t[0]), t.shape))
    low, span = spec["lo"], spec["hi"] - spec["lo"]
    if not span > 0:
        raise ValueError("hi must be above lo")
    y = (x - low) % (2 * span)
    return np.asarray(low + np.where(y > span, 2 * span - y, y))


def _sun(spec: Any, t: Array, rng: np.random.Generator) -> Array:
    day = spec.get("day", 0.5)
    phase = (t - spec.get("t0", 0.0)) % spec["p"] / spec["p"]
    clear = np.where(phase < day, np.sin(np.pi * phase / day), 0.0) * spec["peak"]
    clouds = _markov([1.0, spec.get("cloud", 0.35)], spec.get("cd", [120, 60]), 0, t, rng)
    return np.asarray(clear * clouds)
