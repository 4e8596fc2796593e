"""What a person reads afterwards in the log: cameras that change their state, events, changes of the variant.

Messages in as they are published, log lines with their fields out. Runs on the engine loop's thread.
"""

from __future__ import annotations

import logging

from edged.bus import schema
from edged.journal import fields

log = logging.getLogger("edged")


def camera_changed(status: schema.Status) -> None:
    well = status.state in ("live", "opening", "ended")
    what = f"{status.state}: {status.reason}" if status.reason not in ("", status.state) else status.state
    extra = fields(camera=status.camera, state=status.state)
    log.log(logging.INFO if well else logging.WARNING, "camera %s is %s", status.camera, what, extra=extra)


def happened(event: schema.Event) -> None:
    log.warning("%s", event.text, extra=fields(kind=event.kind, camera=event.camera, variant=event.variant))


def decided(decision: schema.Decision, before: schema.Decision | None) -> None:
    """A line for each change of the variant; the others are in `edged why`."""
    if before is None or before.variant != decision.variant:
        extra = fields(variant=decision.variant, bound=decision.bound)
        log.info("runs %s", decision.reason, extra=extra)
