"""From a loss to the first picture that is right again, as scripts: one letter a unit.

K keyframe, P picture, R recovery point (3 pictures later all is right), S parameter sets without a keyframe, L leading.
A "!" before a letter: something before it is missing; a small letter: it did not arrive whole.
"""

from __future__ import annotations

import pytest

from edged.frames.video.access_unit import UnitFacts
from edged.frames.video.damage import DamageTracker

S = 1_000_000_000


def facts(letter: str) -> UnitFacts:
    return UnitFacts(True, True, letter == "K", letter == "L", letter in "KS", 3 if letter == "R" else None)


def run(script: str, fps: float = 15) -> str:
    """ "." for each unit whose picture may be shown, "x" for the others."""
    damage, shown, n = DamageTracker(), "", 0
    for letter in script:
        if letter == "!":
            damage.hurt()
            continue
        right = damage.unit(facts(letter.upper()), letter.isupper(), int(n / fps * S))
        shown, n = shown + (".x"[not right]), n + 1
    return shown


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("PPKPPKPP", "xx......"),  # nothing is right before the first keyframe
        ("KPpPPKPP", "..xxx..."),  # a damaged picture and all that refer to it
        ("KP!PPKPP", "..xx..."),
        ("KPPkPPKP", "...xxx.."),  # a damaged keyframe ends nothing
        ("KP!KPP", "....."),  # what was missing belonged to the pictures before
        ("KPpRPPPP", "..xxxx.."),
        ("KPpRpPRPPPP", "..xxxxxxx.."),  # a further loss restarts the count
        ("KPpPSPPPSPPSP", "..xxxxxxxxx.."),
        ("KPpKLLPP", "..x.xx.."),  # leading pictures refer to what was lost
    ],
)
def test_scripts(script: str, shown: str) -> None:
    assert run(script) == shown


def test_pictures_that_are_shown_before_the_keyframe_just_passed_may_refer_to_what_was_lost() -> None:
    damage, wrap = DamageTracker(), 1 << 32
    order = [("K", 0), ("P", 3), ("p", 6), ("P", 4), ("K", 10), ("P", 8), ("P", 9), ("P", 13), ("P", 11)]
    shown = ""
    for n, (letter, at) in enumerate(order):
        right = damage.unit(facts(letter.upper()), letter.isupper(), n * S, (wrap - 9 + at) % wrap)
        shown += ".x"[not right]
    assert shown == "..xx.xx.."


def test_without_any_sign_damage_ends_after_ten_seconds() -> None:
    shown = run("Kp" + "P" * 200, fps=15)
    assert shown.index(".", 1) == 1 + 150


def test_a_long_keyframe_interval_lengthens_that() -> None:
    period = "K" + "P" * 59  # at 4 fps: 15 s
    shown = run(period * 2 + "p" + "P" * 58 + "K", fps=4)
    assert shown[120:179] == "x" * 59 and shown[179] == "."


def test_the_interval_between_keyframes_is_known() -> None:
    damage = DamageTracker()
    assert damage.beginning
    for n, letter in enumerate("KPPPKPPP"):
        damage.unit(facts(letter), True, n * S)
    assert damage.keyframe_interval_ns == 4 * S and not damage.beginning
