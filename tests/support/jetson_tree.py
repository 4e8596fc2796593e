"""A Jetson as files: the /sys, /proc and /etc of four boards and stand-ins for NVIDIA's tools, under one directory.

Every sensor is a plain file: a test changes the hardware by writing to it. Labels, paths and prompts are those that
real boards show; the numbers are of the order that they show. `board.bin` holds `nvpmodel`, `jetson_clocks`,
`nvfancontrol` and `systemctl`, which keep their state in `state/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Channels = Mapping[int, tuple[str, int, int]]  # channel -> label, mV, mA


@dataclass(frozen=True)
class Board:
    """`modes`: id -> name and the mask of its powered-off GPU parts; a change of mask needs a reboot."""

    model: str
    part: str
    compatible: tuple[str, ...]
    release: str
    cores: int
    gpu: str
    chips: Mapping[str, tuple[str, Channels]]  # bus address -> driver, channels
    modes: Mapping[int, tuple[str, int]]
    mask: str = "TPC_POWER_GATING TPC_PG_MASK"
    mode: int = 0
    gpu_hz: tuple[int, ...] = tuple(range(306_000_000, 1_020_000_001, 102_000_000))


_R36 = (
    "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 16:07:13 UTC 2025"
)
_R38 = (
    "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: Wed Dec 31 00:00:00 UTC 2025"
)

BOARDS = {
    "orin_nano": Board(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        part="699-13767-0005-300 N.2",
        compatible=("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        release=_R36,
        cores=6,
        gpu="17000000.gpu",
        chips={"1-0040": ("ina3221", {
            1: ("VDD_IN", 4976, 1408), 2: ("VDD_CPU_GPU_CV", 4976, 320), 3: ("VDD_SOC", 4968, 272),
        })},
        modes={0: ("15W", 240), 1: ("25W", 240), 2: ("MAXN_SUPER", 240), 3: ("7W", 252)},
    ),
    "orin_nx": Board(
        model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        part="699-13767-0000-301 G.1",
        compatible=("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        release=_R36,
        cores=8,
        gpu="17000000.gpu",
        chips={"1-0040": ("ina3221", {
            1: ("VDD_IN", 4976, 1810), 2: ("VDD_CPU_GPU_CV", 4976, 512), 3: ("VDD_SOC", 4968, 344),
        })},
        modes={0: ("MAXN", 240), 1: ("10W", 252), 2: ("15W", 240), 3: ("25W", 240)},
        mode=3,
    ),
    "agx_orin": Board(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        part="699-13701-0005-500 M.0",
        compatible=("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        release=_R36,
        cores=12,
        gpu="17000000.gpu",
        chips={
            "1-0040": ("ina3221", {
                1: ("VDD_GPU_SOC", 19024, 126), 2: ("VDD_CPU_CV", 19024, 42), 3: ("VIN_SYS_5V0", 5024, 701),
            }),
            "1-0041": ("ina3221", {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 5024, 60), 3: ("NC", 0, 0)}),
        },
        modes={0: ("MAXN", 0), 1: ("MODE_15W", 248), 2: ("MODE_30W", 240), 3: ("MODE_50W", 0)},
        mode=2,
    ),
    "thor": Board(
        model="NVIDIA Jetson AGX Thor Developer Kit",
        part="699-13834-0008-400 M.0",
        compatible=("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        release=_R38,
        cores=14,
        gpu="gpu-gpc-0",
        chips={
            "2-0040": ("ina3221", {
                1: ("VDD_GPU", 19600, -20), 2: ("VDD_CPU_SOC_MSS", 19600, 332), 3: ("VIN_SYS_5V0", 5008, 1302),
            }),
            "2-0044": ("ina238", {1: ("VIN", 19800, 1180)}),
        },
        modes={0: ("MAXN", 64), 1: ("120W", 64), 2: ("90W", 15873)},
        mask="GPU_POWER_GATING GPU_PG_MASK",
        mode=1,
        gpu_hz=(306_000_000, 702_000_000, 1_098_000_000, 1_575_000_000),
    ),
}  # fmt: skip

ZONES: tuple[tuple[str, int | None], ...] = (
    ("cpu-thermal", 47312), ("gpu-thermal", 46500), ("cv0-thermal", None), ("cv1-thermal", None),
    ("cv2-thermal", None), ("soc0-thermal", 45906), ("soc1-thermal", 46718), ("soc2-thermal", 45125),
    ("tj-thermal", 48093),
)  # fmt: skip
"""None: powered off, which the kernel answers with EAGAIN and these files by being empty."""


class JetsonTree:
    """`root` filled with the files of a board. Sensors are written in one piece: no reader sees half a number."""

    def __init__(self, root: Path, board: str = "orin_nano") -> None:
        self.root = root
        self.board = BOARDS[board]
        self.bin = root / "bin"
        self.gpu = f"sys/devices/platform/{self.board.gpu}"
        self.devfreq = f"{self.gpu}/devfreq/{self.board.gpu}"
        self._hwmons = 0
        self._identity()
        for address, (driver, channels) in self.board.chips.items():
            self._chip(address, driver, channels)
        self._throttle()
        self._fan()
        for number, (kind, milli_c) in enumerate(ZONES):
            zone = f"sys/devices/virtual/thermal/thermal_zone{number}"
            self.make(f"{zone}/type", kind)
            self.make(f"{zone}/temp", "" if milli_c is None else milli_c)
            self.link(f"sys/class/thermal/thermal_zone{number}", zone)
        self._processors()
        self._gpu()
        self._tools()

    # --- for tests ----------------------------------------------------------------------------------------------------

    def write(self, name: str, value: object) -> None:
        """Change the hardware: one write, of a fixed length, without truncating first."""
        descriptor = os.open(self.root / name, os.O_WRONLY)
        try:
            os.pwrite(descriptor, f"{value}\n".encode().ljust(64, b"\n"), 0)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> str:
        return (self.root / name).read_text().strip()

    def rail(self, label: str) -> str:
        """The name of the file with this rail's current in mA."""
        for file in sorted((self.root / "sys/devices/platform/i2c").rglob("in*_label")):
            if file.read_text().strip() == label:
                return str(
                    file.with_name(file.name.replace("in", "curr").replace("_label", "_input")).relative_to(self.root)
                )
        raise KeyError(label)

    def write_total_w(self, watts: float) -> None:
        """Let the whole board draw so much, on the rail that its module is measured at."""
        (meter,) = self.root.glob("sys/devices/platform/i2c/*/hwmon/*/power1_input") or (None,)
        if meter is not None:
            self.write(str(meter.relative_to(self.root)), round(watts * 1e6))
            return
        current = self.rail("VDD_IN")
        mv = int(self.read(current.replace("curr", "in")))
        self.write(current, round(watts * 1e6 / mv))

    def make(self, name: str, value: object, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n" if value != "" else "")
        path.chmod(mode)
        return path

    def link(self, name: str, target: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(self.root / target, path.parent))

    # --- the board ----------------------------------------------------------------------------------------------------

    def _identity(self) -> None:
        board = self.board
        self.make("proc/device-tree/compatible", "".join(f"{word}\0" for word in board.compatible))
        self.make("proc/device-tree/model", board.model + "\0")
        self.make("sys/firmware/devicetree/base/model", board.model + "\0")
        self.make("sys/firmware/devicetree/base/serial-number", "1421424000001\0")
        self.make("etc/nv_tegra_release", board.release)
        self.make("eeprom", board.part)
        self.make("proc/pressure/cpu", "some avg10=1.50 avg60=1.00 avg300=0.50 total=1\nfull avg10=0.00 avg60=0.00")
        self.make("proc/meminfo", "MemTotal: 7802932 kB\nMemFree: 1000000 kB\nMemAvailable: 4000000 kB")

    def _hwmon(self, device: str, name: str) -> str:
        """A hwmon directory under `device`; numbers are given out in the order of calls."""
        directory = f"{device}/hwmon/hwmon{self._hwmons}"
        self.make(f"{directory}/name", name)
        self.link(f"sys/class/hwmon/hwmon{self._hwmons}", directory)
        self._hwmons += 1
        return directory

    def _chip(self, address: str, driver: str, channels: Channels) -> None:
        device = f"sys/devices/platform/i2c/{address}"
        directory = self._hwmon(device, driver)
        self.make(f"{device}/name", driver)
        for n, (label, mv, ma) in channels.items():
            self.make(f"{directory}/in{n}_input", mv)
            self.make(f"{directory}/curr{n}_input", ma)
            if driver == "ina238":  # without labels, but with a power of its own
                self.make(f"{directory}/power{n}_input", mv * ma)
                continue
            self.make(f"{directory}/in{n}_label", label)
            self.make(f"{directory}/in{n}_enable", 1)
            self.make(f"{directory}/curr{n}_crit_alarm", 0)
            self.make(f"{directory}/curr{n}_max_alarm", 0)
            self.make(f"{directory}/shunt{n}_resistor", 5000)
            self.make(f"{directory}/curr{n}_crit", 32760)
            self.make(f"{directory}/curr{n}_max", 32760)
        if driver == "ina3221":
            self.make(f"{directory}/in7_label", "sum of shunt voltages")
            self.make(f"{directory}/in7_input", 0)
        self.link(f"sys/bus/i2c/devices/{address}", device)
        self.link(f"sys/bus/i2c/drivers/{driver}/{address}", device)

    def _throttle(self) -> None:
        directory = self._hwmon("sys/devices/platform/soctherm-oc-event", "soctherm_oc")
        for n in (1, 2, 3):
            self.make(f"{directory}/oc{n}_event_cnt", 0)
            self.make(f"{directory}/oc{n}_throt_en", 1)
        for n, kind in enumerate(("cpu-throttle-alert", "gpu-throttle-alert", "hot-surface-alert")):
            device = f"sys/devices/virtual/thermal/cooling_device{n}"
            self.make(f"{device}/type", kind)
            self.make(f"{device}/cur_state", 0)
            self.link(f"sys/class/thermal/cooling_device{n}", device)

    def _fan(self) -> None:
        directory = self._hwmon("sys/devices/platform/pwm-fan", "pwmfan")
        self.make(f"{directory}/pwm1", 66)
        self.make(f"{directory}/pwm1_enable", 1)
        directory = self._hwmon("sys/devices/platform/bus@0/39c0000.tachometer", "pwm_tach")
        self.make(f"{directory}/rpm", 1786)
        profiles = "".join(f"    FAN_PROFILE {p} {{\n        0 0 255 2900\n    }}\n" for p in ("cool", "quiet"))
        self.make(
            "etc/nvfancontrol.conf",
            "POLLING_INTERVAL 2\n<FAN 1>\n    TMARGIN ENABLED\n    FAN_GOVERNOR pid {\n        STEP_SIZE 10\n    }\n"
            f"{profiles}    FAN_DEFAULT_CONTROL open_loop\n    FAN_DEFAULT_PROFILE cool\n    FAN_DEFAULT_GOVERNOR pid",
        )
        self.make("etc/systemd/system/nvfancontrol.service", "[Unit]")
        self.make("state/nvfancontrol.active", 1)

    def _processors(self) -> None:
        for core in range(self.board.cores):
            directory = f"sys/devices/system/cpu/cpu{core}"
            self.make(f"{directory}/online", 1)
            self.make(f"{directory}/cpufreq/scaling_governor", "schedutil")
            for kind in ("scaling", "cpuinfo"):
                for bound, khz in (("min", 115200), ("max", 1728000), ("cur", 729600)):
                    self.make(f"{directory}/cpufreq/{kind}_{bound}_freq", khz)
        self.make("sys/devices/system/cpu/online", f"0-{self.board.cores - 1}")
        lines = [f"cpu{core} 100 0 50 2250 2 0 1 0 0 0" for core in range(self.board.cores)]
        self.make("proc/stat", "\n".join(["cpu  400 0 200 9000 10 0 5 0 0 0", *lines, "intr 0"]))
        emc = {"rate": 2133000000, "max_rate": 3199000000, "min_rate": 204000000, "mrq_rate_locked": 0}
        for name, value in emc.items():
            self.make(f"sys/kernel/debug/bpmp/debug/clk/emc/{name}", value)
        self.make("sys/kernel/debug/cactmon/mc_all", 2559600)
        self.make("sys/kernel/nvpmodel_emc_cap/emc_iso_cap", 0)
        for engine in ("nvdec", "nvenc", "vic", "ofa", "ape"):
            self.make(f"sys/kernel/debug/clk/{engine}/clk_enable_count", 0)
            self.make(f"sys/kernel/debug/clk/{engine}/clk_rate", 0)
        self.make("sys/kernel/debug/nvmap/iovmm/maps", "CLIENT PROCESS PID SIZE\ntotal 0K")

    def _gpu(self) -> None:
        self.make(f"{self.gpu}/of_node/name", "gpu\0")
        for name, number in {"load": 423, "railgate_enable": 1, "tpc_pg_mask": 0, "enable_3d_scaling": 1}.items():
            self.make(f"{self.gpu}/{name}", number)
        self.make(f"{self.gpu}/power/control", "auto")
        hz = self.board.gpu_hz
        values = {
            "cur_freq": hz[1], "min_freq": hz[0], "max_freq": hz[-1], "governor": "nvhost_podgov",
            "available_governors": "nvhost_podgov performance", "available_frequencies": " ".join(map(str, hz)),
        }  # fmt: skip
        for name, value in values.items():
            self.make(f"{self.devfreq}/{name}", value)
        self.link(f"{self.devfreq}/device", self.gpu)
        self.link(f"sys/class/devfreq/{self.board.gpu}", self.devfreq)

    # --- NVIDIA's tools -----------------------------------------------------------------------------------------------

    def _tools(self) -> None:
        board, root = self.board, self.root.resolve()
        self.make("state/nvpmodel", board.mode)
        verbose = [
            "NVPM VERB: Config file: /etc/nvpmodel.conf",
            f"NVPM VERB: PM_CONFIG: DEFAULT={board.modes[board.mode][0]}({board.mode})",
            "NVPM VERB:",
        ]
        for number, (name, mask) in board.modes.items():
            verbose += [f"NVPM VERB: POWER_MODEL: ID={number} NAME={name}", f"NVPM VERB: {board.mask} {mask}"]
        self.make("state/nvpmodel.verbose", "\n".join(verbose))
        names = " ".join(f"{number}) echo {name};;" for number, (name, _) in board.modes.items())
        masks = " ".join(f"{number}) echo {mask};;" for number, (_, mask) in board.modes.items())
        self.make("bin/nvpmodel", _NVPMODEL.format(state=root / "state", names=names, masks=masks), 0o755)
        paths = {
            "root": root, "cpus": root / "sys/devices/system/cpu", "gpu": root / self.devfreq,
            "emc": root / "sys/kernel/debug/bpmp/debug/clk/emc",
            "model": board.model, "last": board.cores - 1, "low": board.gpu_hz[0], "high": board.gpu_hz[-1],
        }  # fmt: skip
        self.make("bin/jetson_clocks", _JETSON_CLOCKS.format(**paths), 0o755)
        self.make("bin/nvfancontrol", _NVFANCONTROL.format(root=root), 0o755)
        self.make("bin/systemctl", _SYSTEMCTL.format(root=root), 0o755)


_NVPMODEL = """#!/bin/sh
# Queries work for anybody. `state/nvpmodel.delay` (seconds) and `state/nvpmodel.fail` are faults a test may set.
S={state}
echo "$@" >> $S/nvpmodel.calls
[ -f $S/nvpmodel.delay ] && sleep $(cat $S/nvpmodel.delay)
[ -f $S/nvpmodel.fail ] && {{ echo "NVPM ERROR: Error opening /var/lib/nvpmodel/status: 2"; exit 255; }}
current=$(cat $S/nvpmodel)
name() {{ case $1 in {names} esac; }}
mask() {{ case $1 in {masks} esac; }}
case "$1" in
  -p) cat $S/nvpmodel.verbose;;
  -q) echo "NV Power Mode: $(name $current)"; echo $current;;
  -m) if [ "$(mask $2)" = "$(mask $current)" ]; then echo $2 > $S/nvpmodel; exit 0; fi
      echo "NVPM WARN: Golden image context is already created"
      echo "NVPM WARN: Reboot required for changing to this power mode: $2"
      echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
      read answer
      case "$answer" in
        YES|yes) echo "NVPM WARN: rebooting"; echo $2 > $S/nvpmodel.rebooted; echo $2 > $S/nvpmodel;;
        *) echo "NVPM ERROR: bad input!"; echo "NVPM ERROR: optMask is 1, no request for power mode"; exit 255;;
      esac;;
esac
"""

_JETSON_CLOCKS = """#!/bin/sh
echo "$@" >> {root}/state/jetson_clocks.calls
case "$1" in
  --show)
    echo "SOC family:tegra234  Machine:{model}"
    echo "Online CPUs: 0-{last}"
    echo "cpu0: Online=1 Governor=schedutil MinFreq=115200 MaxFreq=1728000 CurrentFreq=729600 IdleStates: WFI=1 c7=1 "
    echo "GPU MinFreq={low} MaxFreq={high} CurrentFreq={low}"
    echo "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0"
    echo "NV Power Mode: x";;
  --store) echo saved > "$2"; echo stored;;
  --restore)
    for cpu in {cpus}/cpu[0-9]*/cpufreq; do echo 115200 > $cpu/scaling_min_freq; done
    echo {low} > {gpu}/min_freq; echo 2133000000 > {emc}/rate;;
  *)
    for cpu in {cpus}/cpu[0-9]*/cpufreq; do cat $cpu/scaling_max_freq > $cpu/scaling_min_freq; done
    cat {gpu}/max_freq > {gpu}/min_freq; cat {emc}/max_rate > {emc}/rate;;
esac
"""

_NVFANCONTROL = """#!/bin/sh
profile=$(sed -n 's/.*FAN_DEFAULT_PROFILE //p' {root}/etc/nvfancontrol.conf)
echo "FAN1:FAN_PROFILE:$profile"
echo "FAN1:FAN_GOVERNOR:pid"
echo "FAN1:FAN_CONTROL:open_loop"
echo "FAN1:FAN_STATUS:ENABLED"
"""

_SYSTEMCTL = """#!/bin/sh
S={root}/state
echo "$@" >> $S/systemctl.calls
case "$1" in
  status)
    if [ "$(cat $S/nvfancontrol.active)" = 1 ]; then echo "   Active: active (running)"; exit 0; fi
    echo "   Active: inactive (dead)"; exit 3;;
  stop) echo 0 > $S/nvfancontrol.active;;
  start) echo 1 > $S/nvfancontrol.active;;
esac
"""
