"""Run the checks one by one, a line each: python -m tests.v4l2 [TEXT in their names]. Root, on a machine with vivid."""

from __future__ import annotations

import sys
import time
import traceback

from tests.v4l2 import live, opening, vivid


def main(only: str) -> int:
    """1 if a check failed. A check fails with any exception and returns what it has seen."""
    vivid.load()
    passed = failed = 0
    for check in (*opening.CHECKS, *live.CHECKS):
        name = check.__name__.replace("_", " ")
        if only not in name:
            continue
        begin = time.monotonic()
        try:
            vivid.reset()
            seen = check()
            passed += 1
            print(f"ok    {name}: {seen} [{time.monotonic() - begin:.1f} s]", flush=True)
        except Exception as error:
            failed += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = str(error) or place.line
            print(f"FAIL  {name}: {type(error).__name__}: {reason} ({place.filename}:{place.lineno})", flush=True)
    live.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
