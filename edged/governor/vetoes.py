"""What the accuracy guard has forbidden: a variant everywhere, or on single cameras. Pure.

A veto of one camera leaves the variant to all others: the standing decision stays, and each choice for frames of that
camera goes to what may run there. If nothing may, the most accurate variant that works and is not vetoed stands in.
"""

from __future__ import annotations

from edged.governor.fast_replace import replace
from edged.governor.messages import Unvetoed, Vetoed
from edged.governor.standing import State, index


def heard(state: State, said: Vetoed | Unvetoed) -> State:
    """After a veto or its end; the same state if it changes nothing. A veto everywhere ends an operator's pin."""
    i = index(state, said.variant)
    if i is None:
        return state
    why = said.why if isinstance(said, Vetoed) else None
    if said.camera is not None:
        others = tuple(item for item in state.barred if item[:2] != (said.camera, i))
        barred = others if why is None else (*others, (said.camera, i, why))
        return state if barred == state.barred else replace(state, barred=barred)
    if (state.vetoed[i] is None) == (why is None):
        return state
    vetoed = (*state.vetoed[:i], why, *state.vetoed[i + 1 :])
    return replace(state, vetoed=vetoed, pinned=None if state.pinned == i else state.pinned)


def allowed_on(state: State, able: tuple[bool, ...]) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    """Of each camera with a veto of its own: by variant, whether it may run there, if `able` may run elsewhere."""
    found = []
    for camera in dict.fromkeys(camera for camera, _, _ in state.barred):
        barred = {i for name, i, _ in state.barred if name == camera}
        here = tuple([may and i not in barred for i, may in enumerate(able)])
        if not any(here):
            working = [i for i, lost in enumerate(state.lost) if lost is None]
            unvetoed = [i for i in working if state.vetoed[i] is None and i not in barred]
            stand_in = (unvetoed or working)[0]
            here = tuple([i == stand_in for i in range(len(able))])
        found.append((camera, here))
    return tuple(found)


def variant_for(state: State, camera: str) -> str:
    """The standing variant, or what runs on this camera in its place."""
    here = state.economy.allowed_on(camera)
    if here[state.current]:
        return state.variants[state.current].name
    return state.variants[here.index(True)].name
