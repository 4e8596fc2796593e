from __future__ import annotations

from edged.accuracy_guard.sampling import StratifiedSampler


def draws(stretch: StratifiedSampler, share: float, frames: int) -> list[int]:
    return [n for n in range(frames) if stretch.drawn(share)]


def test_each_stretch_of_a_camera_gives_exactly_one_frame() -> None:
    chosen = draws(StratifiedSampler(0, "gate"), 0.05, 2000)
    assert [n // 20 for n in chosen] == list(range(100))


def test_the_place_in_the_stretch_is_random_and_another_for_each_camera() -> None:
    gate, yard = (draws(StratifiedSampler(0, name), 0.05, 2000) for name in ("gate", "yard"))
    assert len({n % 20 for n in gate}) > 12
    assert gate != yard
    assert gate == draws(StratifiedSampler(0, "gate"), 0.05, 2000) != draws(StratifiedSampler(1, "gate"), 0.05, 2000)


def test_a_greater_share_takes_effect_at_once_and_none_draws_none() -> None:
    stretch = StratifiedSampler(3, "gate")
    assert draws(stretch, 0.0, 1000) == []
    draws(stretch, 0.01, 5)
    assert draws(stretch, 0.1, 10) != []
    assert len(draws(stretch, 0.1, 990)) == 99
    assert len(draws(stretch, 0.01, 10_000)) in (99, 100, 101)


def test_every_frame_if_all_are_wanted() -> None:
    assert len(draws(StratifiedSampler(0, "gate"), 1.0, 50)) == 50
