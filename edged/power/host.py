"""What any Linux machine can honestly say of itself: files under /proc and /sys in, a `Sample` out.

CPU use, CPU pressure and memory exist everywhere; temperatures where hwmon or thermal zones exist; power where the
processor counts its energy (RAPL). Runs on the sampler's thread. What cannot be read is None with a sentence, never 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edged import clock
from edged.power.telemetry import Sample

FILE_LIMIT: Final = 65_536
"""No file read here is longer; a stranger one is not read to its end."""
PLAUSIBLE_C: Final = (-40.0, 150.0)
"""Sensors report absence as values like -256 degrees."""
RAPL_GAP_S: Final = 600.0
"""After a longer pause the counter may have wrapped more than once: no power from it."""
RAPL_ZONE: Final = re.compile(r"intel-rapl:\d+(:\d+)?")
"""Packages, the platform, and their parts; `intel-rapl-mmio` counts the same package again."""


class HostProvider:
    """Reads the tree under `root`; keeps the counters of the last read, from which rates come."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cpu: tuple[int, int] | None = None
        self._energy: dict[str, tuple[int, int]] = {}  # rail -> (microjoules, when)

    @property
    def name(self) -> str:
        return "host"

    def close(self) -> None:
        """Nothing is held between reads."""

    def read(self) -> Sample:
        missing: list[str] = []
        cpu = self._cpu_percent(missing)
        pressure = self._cpu_pressure(missing)
        memory = self._memory_mb(missing)
        temperatures = self._temperatures(missing)
        rails = self._rails(missing)
        power, estimated = _total(rails, missing)
        return Sample(
            provider=self.name,
            mono_ns=clock.mono_ns(),
            power_w=power,
            power_estimated=estimated,
            rails_w=rails,
            temperature_c=max((t for t in temperatures.values() if t is not None), default=None),
            temperatures_c=temperatures,
            cpu_percent=cpu,
            memory_available_mb=memory,
            cpu_pressure_percent=pressure,
            missing=tuple(missing),
        )

    # --- processor and memory -----------------------------------------------------------------------------------------

    def _cpu_percent(self, missing: list[str]) -> float | None:
        """Share of all cores' time not idle since the last read."""
        text = self._text("proc/stat", missing)
        if text is None:
            return None
        fields = text.split("\n", 1)[0].split()
        # user nice system idle iowait irq softirq steal; guest time that follows is counted in user already
        ticks = [int(f) for f in fields[1:9] if f.isdecimal()]
        if fields[:1] != ["cpu"] or len(ticks) < 5:
            missing.append("/proc/stat does not begin with the line of all CPUs")
            return None
        before, now = self._cpu, (sum(ticks), ticks[3] + ticks[4])
        self._cpu = now
        if before is None:
            missing.append("CPU use needs two readings; this is the first")
            return None
        total, idle = now[0] - before[0], now[1] - before[1]
        if total <= 0 or not 0 <= idle <= total:  # iowait may run backwards, by the kernel's own account
            missing.append("/proc/stat did not advance since the last reading")
            return None
        return 100 * (total - idle) / total

    def _cpu_pressure(self, missing: list[str]) -> float | None:
        """Share of the last 10 s in which some task waited for a CPU."""
        return self._number(
            "proc/pressure/cpu", r"^some avg10=(\d{1,3}\.\d+)", "/proc/pressure/cpu has no line 'some avg10='", missing
        )

    def _memory_mb(self, missing: list[str]) -> float | None:
        kib = self._number(
            "proc/meminfo", r"^MemAvailable:\s+(\d{1,15}) kB$", "/proc/meminfo has no MemAvailable", missing
        )
        return None if kib is None else kib * 1024 / 1e6

    def _number(self, file: str, pattern: str, absent: str, missing: list[str]) -> float | None:
        """The number that the pattern finds in a file; `absent` is said where it does not."""
        text = self._text(file, missing)
        if text is None:
            return None
        found = re.search(pattern, text, re.MULTILINE)
        if found is None:
            missing.append(absent)
            return None
        return float(found.group(1))

    # --- temperatures -------------------------------------------------------------------------------------------------

    def _temperatures(self, missing: list[str]) -> dict[str, float | None]:
        """Every sensor by name; one that is there but does not answer is None."""
        readings: dict[str, float | None] = {}
        for zone in self._entries("sys/class/thermal", "thermal_zone*"):
            kind = self._label(zone / "type") or zone.name
            readings[_unique(kind, readings)] = self._celsius(zone / "temp", missing)
        for chip in self._entries("sys/class/hwmon", "hwmon*"):
            chip_name = self._label(chip / "name") or chip.name
            for sensor in sorted(chip.glob("temp*_input")):
                label = self._label(sensor.with_name(sensor.name.replace("_input", "_label")))
                name = f"{chip_name}/{label or sensor.name.removesuffix('_input')}"
                readings[_unique(name, readings)] = self._celsius(sensor, missing)
        if not readings:
            missing.append("no temperature: this machine has no thermal zones and no hwmon temperature sensors")
        return readings

    def _celsius(self, path: Path, missing: list[str]) -> float | None:
        milli = self._integer(path, missing)
        if milli is None:
            return None
        low, high = PLAUSIBLE_C
        if not low <= milli / 1000 <= high:
            missing.append(f"{self._shown(path)} says {milli / 1000:g} C, which no working sensor does")
            return None
        return milli / 1000

    # --- power --------------------------------------------------------------------------------------------------------

    def _rails(self, missing: list[str]) -> dict[str, float | None]:
        """Mean watts of every RAPL zone since the last read: "package-0", "package-0/core", "psys"."""
        zones = [z for z in self._entries("sys/class/powercap", "intel-rapl:*") if RAPL_ZONE.fullmatch(z.name)]
        rails: dict[str, float | None] = {}
        names: dict[str, str] = {}
        for zone in zones:  # sorted: a package comes before its parts
            own = self._label(zone / "name") or zone.name
            parent = names.get(zone.name.rpartition(":")[0])
            names[zone.name] = _unique(f"{parent}/{own}" if parent else own, rails)
            rails[names[zone.name]] = self._zone_w(zone, names[zone.name], missing)
        if not zones:
            missing.append(
                "no power: this machine has no power meter that edged knows (no RAPL in /sys/class/powercap)"
            )
        return rails

    def _zone_w(self, zone: Path, rail: str, missing: list[str]) -> float | None:
        now_uj = self._integer(zone / "energy_uj", missing)
        before = self._energy.pop(rail, None)
        if now_uj is None:
            return None
        now_ns = clock.mono_ns()
        self._energy[rail] = (now_uj, now_ns)
        if before is None:
            missing.append(f"power of {rail} needs two readings; this is the first")
            return None
        used_uj, gap_s = now_uj - before[0], (now_ns - before[1]) / clock.NS_PER_S
        if gap_s > RAPL_GAP_S or gap_s <= 0:
            missing.append(f"power of {rail}: {gap_s:.0f} s since the last reading, the counter may have wrapped")
            return None
        if used_uj < 0:  # the counter starts again from 0 after its range
            span_uj = self._integer(zone / "max_energy_range_uj", missing)
            if span_uj is None or used_uj + span_uj < 0:
                missing.append(f"power of {rail}: the energy counter ran backwards")
                return None
            used_uj += span_uj
        return used_uj / 1e6 / gap_s

    # --- files --------------------------------------------------------------------------------------------------------

    def _entries(self, folder: str, pattern: str) -> list[Path]:
        return sorted((self._root / folder).glob(pattern), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])

    def _text(self, path: str, missing: list[str]) -> str | None:
        return self._read(self._root / path, missing)

    def _integer(self, path: Path, missing: list[str]) -> int | None:
        text = self._read(path, missing)
        if text is None:
            return None
        if not re.fullmatch(r"-?\d{1,18}\s*", text, re.ASCII):
            missing.append(f"{self._shown(path)} holds {text[:40]!r}, not a whole number")
            return None
        return int(text)

    def _label(self, path: Path) -> str | None:
        """A name the kernel gives, if it gives one: absence is normal and needs no sentence."""
        text = self._read(path, [])
        return " ".join(text.split())[:40] or None if text else None

    def _read(self, path: Path, missing: list[str]) -> str | None:
        try:
            with path.open("rb") as file:
                return file.read(FILE_LIMIT).decode("utf-8", "replace")
        except PermissionError:
            missing.append(f"{self._shown(path)} may not be read by this user")
        except OSError as error:
            missing.append(f"{self._shown(path)} cannot be read: {error.strerror or error}")
        return None

    def _shown(self, path: Path) -> str:
        """The path as it is on the machine, without the root."""
        return "/" + str(path.relative_to(self._root))


def _total(rails: dict[str, float | None], missing: list[str]) -> tuple[float | None, bool]:
    """The machine's watts, and whether they are an estimate: without a platform meter, the processor's share alone."""
    if rails.get("psys") is not None:
        return rails["psys"], False
    packages = {name: w for name, w in rails.items() if "/" not in name and name != "psys"}
    known = [w for w in packages.values() if w is not None]
    if not packages or len(known) < len(packages):
        return None, False
    missing.append(f"no platform meter: the power is that of {' + '.join(packages)} alone, the machine draws more")
    return sum(known), True


def _unique(name: str, taken: dict[str, float | None]) -> str:
    """Sensors may share a name; each keeps its own line."""
    if name not in taken:
        return name
    n = 2
    while f"{name}#{n}" in taken:
        n += 1
    return f"{name}#{n}"
