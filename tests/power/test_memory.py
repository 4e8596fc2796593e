from __future__ import annotations

from pathlib import Path

from edged.power.memory import MemoryReader, MemoryReading

MEMINFO = "MemTotal:        8000000 kB\nMemFree:  100 kB\nMemAvailable:    4000000 kB\n"
PRESSURE = "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10={} avg60=0.00 avg300=0.00 total=1\n"


def tree(root: Path, files: dict[str, str]) -> MemoryReader:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return MemoryReader(root)


def test_without_a_control_group_the_machine_counts(tmp_path: Path) -> None:
    reader = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/pressure/memory": PRESSURE.format("2.50")})
    assert reader.read() == MemoryReading(4096.0, 8192.0, 2.5)


def test_the_tightest_group_of_version_2_counts_and_its_idle_file_pages_are_free(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/edged.service"
    reader = tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/system.slice/edged.service\n",
            f"{group}/memory.max": "1000000000\n",
            f"{group}/memory.high": "800000000\n",
            f"{group}/memory.current": "700000000\n",
            f"{group}/memory.stat": "anon 5\ninactive_file 50000000\nactive_file 3\n",
            f"{group}/memory.pressure": PRESSURE.format("12.00"),
            "sys/fs/cgroup/system.slice/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.high": "max\n",
            "sys/fs/cgroup/system.slice/memory.current": "900000000\n",
        },
    )
    assert reader.read() == MemoryReading(150.0, 800.0, 12.0)
    (tmp_path / "sys/fs/cgroup/system.slice/memory.max").write_text("950000000\n")
    assert reader.read().available_mb == 50.0  # of the slice, without statistics


def test_version_1_counts_too_and_its_number_for_no_limit_is_none(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/edged"
    reader = tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:cpu,cpuacct:/edged\n4:memory:/edged\n0::/\n",
            f"{group}/memory.limit_in_bytes": "500000000\n",
            f"{group}/memory.usage_in_bytes": "450000000\n",
            f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 30000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "7000000000\n",
        },
    )
    assert reader.read() == MemoryReading(80.0, 500.0, None)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert MemoryReader(tmp_path).read() == MemoryReading(None, None, None)


def test_this_machine_tells() -> None:
    reading = MemoryReader().read()
    assert reading.available_mb is not None and reading.total_mb is not None
    assert 0 < reading.available_mb <= reading.total_mb
