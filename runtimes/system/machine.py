"""Describes this machine from /proc and /sys, if they exist: processor, limits, memory, versions."""

from __future__ import annotations

import math
import os
from pathlib import Path

from slm.memory import CGROUP

PACKAGES = ("slmx", "torch", "onnxruntime", "onnx", "numpy")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "asimddp", "i8mm")
# ARM's numbers of its processors (MIDR_EL1 in their manuals). Linux shows no name of them in /proc/cpuinfo.
ARM, CPU_PARTS = "0x41", {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")


def cpu_quota(cgroup: Path = CGROUP) -> float | None:
    """Returns the number of processors whose time a container may use, or None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text("utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Returns the number of cores that this process may use, limited by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_fields(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Returns the fields of the last processor in /proc/cpuinfo; empty if the file cannot be read."""
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_features(fields: dict[str, str]) -> list[str]:
    """Returns the instruction sets of a processor that affect speed."""
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return [name for name in FEATURES if name in flags]


def cpu_name(fields: dict[str, str]) -> str:
    """Returns the name of a processor from its fields; "" if they do not tell it."""
    part = CPU_PARTS.get(fields.get("CPU part", "")) if fields.get("CPU implementer") == ARM else None
    return part or fields.get("model name", "")


def this_cpu() -> str:
    """Returns the name of the processor of this machine, or else its architecture."""
    import platform

    return cpu_name(cpu_fields()) or platform.processor() or platform.machine()


def temperature(path: Path = THERMAL) -> float | None:
    """Returns the temperature of the processor in degrees Celsius, or None if it cannot be read."""
    value = _read_number(path)
    return None if value is None else value / 1000


def top_megahertz(path: Path = FREQUENCY) -> float | None:
    """Returns the highest frequency of the first core in MHz, or None if it cannot be read."""
    value = _read_number(path)
    return None if value is None else value / 1000


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def describe_machine() -> dict[str, str]:
    """Returns CPU, instruction sets that affect speed, usable cores, system, Python and package versions."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    fields = cpu_fields()
    found = {
        "cpu": this_cpu(),
        "features": " ".join(cpu_features(fields)) or "unknown",
        "cores": str(usable_cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
