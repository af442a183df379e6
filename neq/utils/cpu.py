"""The processor of this machine."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# Of x86, as Linux names them.
FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
)


@cache
def cpu_model() -> str:
    """Its model's name, as `AMD EPYC 7763 64-Core Processor`."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def cpu_flags() -> tuple[str, ...]:
    """Which of FLAGS, the extensions that inference in int8 and half precision depends on, it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    found = next((line.partition(":")[2].split() for line in text.splitlines() if line[:5] == "flags"), [])
    return tuple(name for name in FLAGS if name in found)
