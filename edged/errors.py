"""The one error a user is meant to read: what is wrong and what to do about it; and the user's own Ctrl-C."""

from __future__ import annotations


def encodable(text: str) -> str:
    """`text` as it can be sent and written: a file's name may hold bytes that are no UTF-8, which are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


class EdgedError(Exception):
    """A fault with its remedy.

    `message` says what is wrong in one sentence, naming the file and the key where there is one;
    `hint` says what to do. Commands print both and exit with 1 (failed) or, for `UsageError`, 2.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = encodable(message), encodable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(EdgedError):
    """The user's input is wrong: a configuration, an argument, a bundle."""

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """What a signal handler of ours raises.

    A class of its own: where a plain KeyboardInterrupt leaves source text that exec() runs (dataclasses do that at
    import), a program started with `-m` dies of SIGINT at its end, handled or not (CPython 3.10 to 3.13).
    """
