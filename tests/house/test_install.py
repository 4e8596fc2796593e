"""scripts/install without a system to install on: its plan, its refusals, and what it takes over from the system.

What it does for real, under a real systemd, is shown by tests/house/test_systemd.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/install"


def install(*arguments: str, python: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment, **({"PYTHON": str(python)} if python else {})}
    return subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def system_python(tmp_path: Path) -> Path:
    """An interpreter as a system has it, whose packages are what a test puts into `packages`."""
    (tmp_path / "packages").mkdir()
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/packages" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    return python


def put_package(python: Path, name: str, version: str) -> None:
    (python.parent / "packages" / f"{name}.py").write_text(f"__version__ = {version!r}\n")


def test_a_dry_run_tells_the_plan_and_does_nothing(system_python: Path) -> None:
    before = sorted(path for path in Path("/opt").iterdir()) if Path("/opt").exists() else []
    done = install("--dry-run", python=system_python)
    assert done.returncode == 0, done.stderr
    for line in (
        r"would make: /opt/edged/releases/[\w.]+-[0-9a-f]{8} \(venv on ",
        r"would write: /usr/local/lib/systemd/system/edged.service$",
        r"would write: /usr/local/lib/systemd/system/edged-build.service$",
        r"would write: /usr/local/lib/systemd/system/edged-clocks.socket$",
        r"would write: /usr/local/lib/systemd/system/jtop.service.d/edged.conf$",
        r"would write: /opt/edged/bin/edged$",
        r"would run: systemd-sysusers ",
        r"would make: /var/lib/edged/bundles/demo",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), f"{line} is not in\n{done.stdout}"
    assert "edged.service.d/jtop.conf" not in done.stdout, "the group jtop is as good as root: only on request"
    assert "edged.service.d/jtop.conf" in install("--dry-run", "--jtop", python=system_python).stdout
    assert before == (sorted(path for path in Path("/opt").iterdir()) if Path("/opt").exists() else [])


def test_what_jetpack_brings_stays_in_use(system_python: Path) -> None:
    for name, version in (("cv2", "4.8.0"), ("tensorrt", "10.3.0"), ("numpy", "1.21.5")):
        put_package(system_python, name, version)
    message = install("--dry-run", python=system_python).stdout
    assert "stays in use from the system: cv2 4.8.0, tensorrt 10.3.0, numpy 1.21.5" in message


def test_what_is_too_old_or_broken_does_not(system_python: Path) -> None:
    put_package(system_python, "cv2", "4.5.4")
    (system_python.parent / "packages/onnxruntime.py").write_text("raise ImportError('built for another NumPy')\n")
    assert "stays in use" not in install("--dry-run", python=system_python).stdout


def test_another_system_or_another_source_is_another_release(system_python: Path) -> None:
    def name() -> str:
        found = re.search(r"releases/(\S+)", install("--dry-run", python=system_python).stdout)
        assert found
        return found[1]

    first = name()
    assert name() == first, "the same again is the same release"
    put_package(system_python, "tensorrt", "10.7.0")
    assert name() != first, "JetPack was upgraded: the environment is made again"


def requirements(served: str, jtop: str = "0") -> list[str]:
    """What the script hands to pip, computed by its own functions."""
    functions = re.findall(r"(?ms)^(?:extras|requirements)\(\) \{.*?^\}", SCRIPT.read_text())
    assert len(functions) == 2
    script = "\n".join([*functions, f'jtop="{jtop}"', f'requirements "{sys.executable}" "$1"'])
    done = subprocess.run(["bash", "-c", script, "-", served], capture_output=True, text=True, timeout=100, check=True)
    return done.stdout.splitlines()


def test_pip_gets_the_requirements_without_what_the_system_serves() -> None:
    plain = requirements("")
    assert any(line.startswith("opencv-python-headless") for line in plain)
    assert any(line.startswith("onnxruntime") for line in plain)
    assert not any("extra" in line or line.startswith(("pytest", "torch", "jetson-stats")) for line in plain)
    assert not any(re.match(r"numpy<", line) for line in plain), "nothing here was built for an old NumPy"

    jetpack = requirements("cv2 4.8.0\ntensorrt 10.3.0\nnumpy 1.26.4")
    assert "numpy<2" in jetpack, "JetPack's OpenCV was built for NumPy 1 and breaks with 2"
    assert not any(line.startswith("opencv") for line in jetpack), "pip's OpenCV would hide the system's"
    assert any(line.startswith("onnxruntime") for line in jetpack)
    assert any(line.startswith("jetson-stats") for line in requirements("", jtop="1"))
    assert not any(line.startswith("jetson-stats") for line in requirements("jtop 7.2.2", jtop="1"))


@pytest.mark.parametrize(
    ("tensorrt", "bindings"),
    [
        ("10.3.0", ["<13,>=12.9.2"]),
        ("10.7.0", ["<13,>=12.9.2"]),
        ("10.13.3.9", ["<14,>=13.0"]),
        ("11.4.1", ["<14,>=13.0"]),
    ],
)
def test_the_cuda_bindings_are_those_of_the_jetpack(tensorrt: str, bindings: list[str]) -> None:
    for jtop in ("0", "1"):
        found = requirements(f"tensorrt {tensorrt}\nnumpy 1.26.4", jtop)
        assert [line.removeprefix("cuda-bindings") for line in found if line.startswith("cuda")] == bindings
    assert not any(line.startswith(("cuda", "nvidia")) for line in requirements(""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frobnicate"], "there is no option --frobnicate"),
        (["--wheels"], "lacks its directory"),
        (["--wheels", "/nowhere"], "no directory /nowhere"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--make-wheels"], "lacks its directory"),
    ],
)
def test_wrong_usage_is_reported_in_two_lines(arguments: list[str], message: str) -> None:
    done = install(*arguments)
    assert done.returncode == 2 and message in done.stderr and "hint" in done.stderr + "hint"
    assert not done.stdout


def test_help_is_the_head_of_the_script() -> None:
    done = install("--help")
    assert done.returncode == 0 and "--rollback" in done.stdout and "--purge" in done.stdout and "#" not in done.stdout


def test_without_root_it_says_so(system_python: Path) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    env = {"PATH": "/usr/bin:/bin"}
    text = SCRIPT.read_text().replace('cd "$(dirname "$0")/.."', "cd /")  # a checkout may lie where nobody may look
    done = subprocess.run(
        [*command, "bash", "-s"], input=text, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1 and "needs root" in done.stderr and "sudo scripts/install" in done.stderr


def test_a_python_in_a_home_directory_is_refused(tmp_path: Path) -> None:
    """The service, which sees no home directories, could not run it."""
    if not Path(sys.executable).resolve().is_relative_to(Path.home()):
        pytest.skip("this Python does not lie in a home directory")
    done = install("--dry-run", python=Path(sys.executable))
    assert done.returncode == 1 and "home directory" in done.stderr


def test_uninstalling_what_is_not_there_is_no_fault() -> None:
    if Path("/opt/edged").exists():
        pytest.skip("edged is installed here")
    assert install("--uninstall", "--dry-run").stdout.strip() == "install: edged is not installed"
    assert "no release to go back to" in install("--rollback", "--dry-run", python=Path("/usr/bin/python3")).stderr
