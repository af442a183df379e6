"""The environment of a run: the software and the hardware that computed it.

A result depends on it (the number of threads alone can change which way a training goes), but it is not what
the run is: it is recorded beside the identity, and a run that is resumed elsewhere stays the same run.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neq
from neq.utils.cpu import cpu_model

if TYPE_CHECKING:
    import torch

GIT_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Environment:
    """The environment that a run, or a part of it, was computed in; a field that is not known is None.

    Of several processes it is that of the first.

    Args:
        threads: of torch within an operation (torch.get_num_threads).
        processes: that trained the run together.
        device: as torch names it: `cpu`, `cuda`, `cuda:0`.
        device_name: model of the GPU, else of the CPU.
        cpu: model of the CPU.
        cpu_capability: the instruction set that torch's CPU kernels use (`AVX2`, `AVX512`).
        torch, torchvision, timm, numpy, neq: versions.
        commit: of the git checkout that neq was imported from; none: it is installed.
        modified: whether that checkout differed from the commit in neq/ or configs/.
        python: version.
        platform: operating system, its version and the machine's architecture.
        cuda: the version of CUDA that torch was built with, where the device is a GPU.
        omp_num_threads: the variable OMP_NUM_THREADS; `threads` is what it came to.
    """

    threads: int | None = None
    processes: int | None = None
    device: str | None = None
    device_name: str | None = None
    cpu: str | None = None
    cpu_capability: str | None = None
    torch: str | None = None
    torchvision: str | None = None
    timm: str | None = None
    numpy: str | None = None
    neq: str | None = None
    commit: str | None = None
    modified: bool | None = None
    python: str | None = None
    platform: str | None = None
    cuda: str | None = None
    omp_num_threads: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a mapping of JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Environment:
        """From what `to_json` returned; fields that this version does not have are ignored."""
        return cls(**{name: values[name] for name in FIELDS if isinstance(values.get(name), _SCALAR)})


_SCALAR = (str, int)  # of which bool is one
FIELDS = tuple(field.name for field in fields(Environment))
# Compared between environments; the variable matters by the threads that it came to.
COMPARED = tuple(name for name in FIELDS if name != "omp_num_threads")


def current_environment(device: torch.device, processes: int = 1) -> Environment:
    """The environment of this process.

    Args:
        device: that the run computes on.
        processes: that train it together.
    """
    import torch

    is_gpu = device.type == "cuda"
    cpu = cpu_model()
    commit, modified = _checkout()
    return Environment(
        threads=torch.get_num_threads(),
        processes=processes,
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if is_gpu else cpu,
        cpu=cpu,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        **{name: _version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        neq=neq.__version__,
        commit=commit,
        modified=modified,
        python=platform.python_version(),
        platform=platform.platform(),
        cuda=torch.version.cuda if is_gpu else None,
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
    )


def differences(environments: Iterable[Environment]) -> dict[str, tuple[Any, ...]]:
    """The fields in which environments differ, each with its values in the order in which they come.

    A value that is not known (None) is no difference.
    """
    found = {}
    every = list(environments)
    for name in COMPARED:
        values = dict.fromkeys(value for one in every if (value := getattr(one, name)) is not None)
        if len(values) > 1:
            found[name] = tuple(values)
    return found


def differences_line(environments: Iterable[Environment]) -> str:
    """The differences as text: `threads: 1, 2; torch: 2.9.0, 2.9.1`; empty where there are none."""
    found = differences(environments)
    return "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in found.items())


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _checkout() -> tuple[str | None, bool | None]:
    """The commit that neq was imported from and whether its files were modified; none outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None
    # Variables such as GIT_DIR, which hooks set, would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--", "neq", "configs"]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=GIT_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    lines = done.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return commit, any(not line.startswith("#") for line in lines)
