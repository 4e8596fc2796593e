"""The command line: arguments in, an exit code out. Thin: each command is imported when it runs.

Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 130 Ctrl-C. What a user can fix is reported in two lines,
without a traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import edged
from edged.errors import EdgedError, UsageError, encodable

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """argparse with the error messages of edged."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    try:
        parsed = _parse(arguments)
        command = importlib.import_module(f"edged.commands.{parsed.command}")
        code: int = command.run(parsed)
        sys.stdout.flush()
        return code
    except EdgedError as error:
        print(f"edged: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        # A library of the system that does not fit another one, usually by NumPy's major version.
        print(f"edged: {error.name or 'a library'} cannot be loaded: {' '.join(str(error).split())}", file=sys.stderr)
        print("  hint: create the environment again: sudo scripts/install, or a new venv", file=sys.stderr)
        return EdgedError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()  # the reader (`| head`) has closed the pipe
        return 0
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and error.filename is None:
            raise
        _discard_output()
        doing = "write" if full else "use"
        print(encodable(f"edged: cannot {doing} {error.filename or 'the output'}: {error.strerror}"), file=sys.stderr)
        return EdgedError.exit_code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    found = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions; see `edged completion`
        import argcomplete

        argcomplete.autocomplete(found)
    return found.parse_args(arguments)


def _discard_output() -> None:
    """Python flushes stdout once more at exit; send that to /dev/null."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """The whole command line, for parsing, completion and the documents' test."""
    parser = _Parser(
        prog="edged",
        description="Runs camera inference within a deadline by choosing, frame by frame, among prebuilt engines of "
        "one model.",
        epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration. Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"edged {edged.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, what: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_daemon_commands(add)
    _add_secret_commands(add)
    _add_client_commands(add)
    _add_ctl(add)
    _add_gateway_commands(add)
    _add_desk_commands(add)
    return parser


_Add = Callable[[str, str, str], argparse.ArgumentParser]


def _add_daemon_commands(add: _Add) -> None:
    demo = add(
        "demo", "run a real daemon on rendered cameras and show what it does", "edged demo --seconds 30 --out /tmp"
    )
    demo.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="how long (default 30, at least 3)")
    demo.add_argument("--cameras", type=int, choices=(1, 2, 3), default=3, metavar="N", help="1 to 3 (default 3)")
    demo.add_argument("--out", default=".", metavar="DIR", help="directory for the picture and the clip (default: .)")
    demo.add_argument("--bundle", metavar="DIR", help="another bundle (default: the shipped demo bundle)")
    demo.add_argument("--plain", action="store_true", help="plain lines instead of the live screen")
    demo.add_argument("--json", action="store_true", help="the summary as one JSON object; the lines go to stderr")

    run = add("run", "run the daemon until SIGTERM or Ctrl-C", "edged run -c /etc/edged/edged.toml")
    _add_config(run)

    check = add("check", "try the whole start without running the daemon", "edged check -c /etc/edged/edged.toml")
    _add_config(check)
    how = check.add_mutually_exclusive_group()
    how.add_argument(
        "--print-effective", action="store_true", help="print the configuration with all defaults, and stop"
    )
    how.add_argument("--print-schema", action="store_true", help="print the configuration's JSON Schema, and stop")
    how.add_argument("--json", action="store_true", help="one JSON object: ok, findings")

    zones = add("zones", "draw a camera's zones, lines and masks on a still", "edged zones gate --out gate.png")
    zones.add_argument("camera", metavar="CAMERA")
    zones.add_argument("--out", metavar="FILE", help="where the PNG goes (default: edged-zones-CAMERA.png)")
    _add_config(zones)

    doctor = add("doctor", "test the hardware and write a report to send back", "edged doctor --out report.json")
    _add_config(doctor)
    doctor.add_argument(
        "--bundle", metavar="DIR", help="the bundle to test (default: the configured one, else the demo's)"
    )
    doctor.add_argument("--max-batch", type=_positive, default=4, metavar="N", help="largest batch to test (default 4)")
    doctor.add_argument("--out", metavar="FILE", help="also write the report to FILE, as JSON")
    doctor.add_argument("--json", action="store_true", help="the report as one JSON object")

    completion = add("completion", "print shell code for completion", "source <(edged completion bash)")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _add_secret_commands(add: _Add) -> None:
    camera = add("camera", "add a camera to the configuration", "edged camera add gate rtsp://user@10.0.0.5/stream1")
    verbs = camera.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    verb = verbs.add_parser(
        "add",
        help="ask the camera for pictures and write its drop-in file",
        description="Ask the camera for pictures and write its drop-in file. The password of the user in SOURCE is "
        "asked for, or read from standard input, and kept as a credential.",
        epilog="example: sudo edged camera add gate rtsp://user@10.0.0.5/stream1 fps=15",
    )
    verb.add_argument("name", metavar="NAME", help="its name: the results come on the topic result/NAME")
    verb.add_argument("source", metavar="SOURCE", help="what to read, without a password")
    verb.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="more keys of its table, such as transport=udp")
    _add_config(verb)

    credential = add("credential", "store passwords for the services, as root", "sudo edged credential set camera.gate")
    verbs = credential.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, what in (
        ("set", "ask for a password, or read it from standard input"),
        ("remove", "delete one"),
        ("list", "list the names"),
    ):
        verb = verbs.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if name != "list":
            verb.add_argument(
                "name",
                metavar="NAME",
                help="camera.NAME, the name in password_credential, or gateway.web, .mqtt, .nats, .webhook",
            )

    key = add("key", "make, list and revoke the keys of clients on the network", "edged key new dashboard --out /tmp")
    verbs = key.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, what in (
        ("new", "make a client's key and give it access"),
        ("list", "list the clients with access"),
        ("revoke", "remove a client's access"),
    ):
        verb = verbs.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if name != "list":
            verb.add_argument("name", metavar="NAME", help="the client's name: lower-case letters, digits, . - or _")
        if name == "new":
            verb.add_argument("--out", default=".", metavar="DIR", help="where its secret key is written (default: .)")
        if name == "list":
            verb.add_argument("--json", action="store_true", help="one JSON object")
        _add_config(verb)


def _add_client_commands(add: _Add) -> None:
    watch = add("watch", "print messages as they arrive", "edged watch result/gate decision --count 10")
    watch.add_argument(
        "topics",
        nargs="*",
        metavar="TOPIC",
        help="result, result/CAMERA, status, decision, event, telemetry, state (default: all)",
    )
    watch.add_argument("--json", action="store_true", help="one JSON object per line")
    watch.add_argument("--count", type=_positive, metavar="N", help="stop after N messages")
    _add_endpoint(watch)

    status = add("status", "show cameras, variants, the decision and the device", "edged status")
    status.add_argument("--json", action="store_true", help="the daemon's `state` message as one JSON object")
    _add_endpoint(status)

    why = add("why", "explain the last decisions", "edged why -n 3")
    why.add_argument("-n", type=_positive, default=5, metavar="N", help="how many (default 5), the newest last")
    why.add_argument("--json", action="store_true", help="a JSON list of `decision` messages")
    _add_endpoint(why)


def _add_ctl(add: _Add) -> None:
    ctl = add("ctl", "control the running daemon", "edged ctl set deadline_ms=40")
    verbs = ctl.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, what, example in (
        (
            "set",
            "change limits, and fps and weight of cameras, until the next reload or start; none removes one",
            "set deadline_ms=40 power_w=none camera.gate.fps=5",
        ),
        ("pin", "always run one variant; none lets the governor choose again", "pin int8-sparse"),
        ("trigger", "open a camera's motion gate for ten seconds: something outside saw motion", "trigger gate"),
        ("profile", "activate a power profile; without a name, list them", "profile night"),
        ("reload", "read the configuration again; a wrong one changes nothing", "reload"),
        ("modes", "list the board's power modes, jetson_clocks and fan profiles", "modes"),
        ("mode", "set a power mode, jetson_clocks or the fan's profile, and verify it", "mode 15W"),
        ("snapshot", "print the daemon's `state` message as JSON", "snapshot"),
    ):
        verb = verbs.add_parser(
            name, help=what, description=what[0].upper() + what[1:] + ".", epilog=f"example: edged ctl {example}"
        )
        if name == "set":
            verb.add_argument(
                "changes",
                nargs="+",
                metavar="KEY=VALUE",
                help="a key of [limits], or camera.NAME.fps or camera.NAME.weight, and its new value",
            )
        if name == "pin":
            verb.add_argument("variant", metavar="NAME|none")
        if name == "trigger":
            verb.add_argument("camera", metavar="CAMERA")
        if name == "profile":
            verb.add_argument(
                "profile", nargs="?", metavar="NAME|none", help="none: back to the limits of the configuration"
            )
        if name == "mode":
            one = verb.add_mutually_exclusive_group(required=True)
            one.add_argument("mode", nargs="?", metavar="NAME", help="a power mode, as `edged ctl modes` lists them")
            one.add_argument(
                "--clocks", choices=("on", "off"), help="hold all clocks at their maximum, or release them"
            )
            one.add_argument("--fan", metavar="PROFILE", help="a fan profile")
        if name != "snapshot":
            verb.add_argument("--json", action="store_true", help="the daemon's reply as one JSON object")
        _add_endpoint(verb)


def _add_gateway_commands(add: _Add) -> None:
    top = add("top", "show the daemon on one screen, drawn again each second", "edged top")
    _add_endpoint(top)

    gateway = add(
        "gateway", "pass on what the daemon reports: metrics, a page, MQTT, NATS, a webhook", "edged gateway -c my.toml"
    )
    _add_config(gateway)
    _add_endpoint(gateway)

    metrics = add("metrics", "print the metrics in Prometheus' text format", "edged metrics --once")
    metrics.add_argument("--once", action="store_true", help="print once and stop (default: again each second)")
    _add_endpoint(metrics)


def _add_desk_commands(add: _Add) -> None:
    simulate = add(
        "simulate",
        "try a power profile on a simulated device",
        "edged simulate --scenario hot-noon --profile balanced --plot noon.png",
    )
    simulate.add_argument(
        "--device",
        choices=("orin-nano", "orin-nx", "agx-orin"),
        default="orin-nano",
        help="device to simulate (default orin-nano)",
    )
    simulate.add_argument("--scenario", metavar="NAME|FILE", help="a shipped scenario, or a file")
    simulate.add_argument("--list", action="store_true", help="list the shipped scenarios, and stop")
    simulate.add_argument("--seed", type=_positive, default=1, metavar="N", help="random seed (default 1)")
    simulate.add_argument("--free-clock", action="store_true", help="let the governor choose the GPU clock too")
    _add_what_if(simulate, several=True)
    simulate.add_argument("--record", metavar="FILE", help="write a log that `edged replay` reads")

    replay = add(
        "replay",
        "repeat every decision of a log and compare",
        "edged replay /var/lib/edged/record --set power_w=8 --plot whatif.png",
    )
    replay.add_argument("log", metavar="LOG", help="a file, or a directory of them as `[record] path` names it")
    _add_what_if(replay, several=False)


def _add_what_if(parser: argparse.ArgumentParser, several: bool) -> None:
    parser.add_argument(
        "--profile",
        metavar="NAME",
        action="append",
        help="under this power profile" + ("; several: side by side" if several else ""),
    )
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", help="with these limits changed; none removes one")
    parser.add_argument("--plot", metavar="FILE", help="plot to a .png or .html file (needs matplotlib)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    _add_config(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="default: $EDGED_CONFIG, else /etc/edged/edged.toml; FILE.d is read too"
    )


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", metavar="URI", help="default: this user's daemon, else the system service")
    parser.add_argument(
        "--curve", nargs=2, metavar=("SECRET", "SERVER"), help="for tcp://: your .key_secret and the daemon's .key file"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text) or not 3 <= float(text) <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 3 to 86400")
    return float(text)
