"""What a result was measured on."""

import datetime
import os
import pathlib
import platform

from jaxrl.versions import STACK, version


def describe() -> dict[str, object]:
    """Machine, versions and date, to stand in every result."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: found for name in STACK if (found := version(name)) is not None},
    }


def _cpu() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()
