"""A `decision` in words, for every place that shows one: why, top, the page. Pure, any thread."""

from __future__ import annotations

from edged.bus.schema import Decision

BOUNDS = {
    "heat": "bound by heat",
    "deadline": "bound by the deadline",
    "load": "bound by the engine's capacity",
    "power": "bound by the mean power",
    "energy": "bound by the energy that must last",
    "accuracy": "bound by the accuracy floor",
    "pin": "pinned by an operator",
    "none": "no limit binds",
}
YIELDS = {
    "heat": "the temperature limit is exceeded: the device is hotter even when idle",
    "deadline": "the deadline is relaxed: frames are late",
    "power": "the power limit is relaxed",
    "energy": "the energy limit is relaxed",
    "accuracy": "the accuracy floor is relaxed: no working variant reaches it",
}


def consequences(decision: Decision) -> list[str]:
    """What follows from the decision beside the variant, one sentence each."""
    texts = [YIELDS.get(what, f"{what} is relaxed") for what in decision.yielded if what != "frame_rate"]
    if "frame_rate" in decision.yielded:
        share = f": about {decision.frame_share:.0%} of the frames are run" if decision.frame_share < 1 else ""
        texts.insert(0, f"the frame rate is reduced{share}")
    texts += decision.unheld
    if decision.clock_mhz is not None:
        texts.append(f"the clock may go up to {decision.clock_mhz:g} MHz")
    if decision.price_per_j > 0:
        texts.append(
            "energy-limited: a frame runs only if it gains more than "
            f"{decision.price_per_j:.2g} accurate frames per joule"
        )
    return texts
