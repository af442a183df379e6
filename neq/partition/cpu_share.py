"""Slower devices emulated on this one: a share of a processor, by a quota of the kernel or by sleeping.

A quota (control group, CPU bandwidth) stops the process in every period once its share is used up; it needs a
control group that may be written, as root has it. Sleeping needs nothing: after each part of the work the
process sleeps as long as a device of that share would still work. It slows the network's parts alone, not the
exchange, and other work of the machine lengthens it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from neq.utils.errors import UserError

ROOT = Path("/sys/fs/cgroup")
# The kernel's least quota, microseconds. Short periods: a device is slow all the time, not now and then.
_QUOTA = 1000
WAYS = ("quota", "sleep")


@contextlib.contextmanager
def quota(share: float, root: Path = ROOT) -> Iterator[None]:
    """Runs this process, with all its threads, in a control group with a share of one processor.

    Args:
        share: above 0, up to 1.
        root: where control groups are mounted.

    Raises:
        UserError: no control group may be written here.
    """
    if share == 1:
        yield
        return
    try:
        parent, is_v2 = _own_group(root)
        group = parent / f"neq-{os.getpid()}"
        group.mkdir(exist_ok=True)  # of a process that was killed
    except OSError as error:
        raise _impossible(error) from None
    try:
        try:
            _limit(group, is_v2, share)
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            raise _impossible(error) from None
        yield
    finally:
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            group.rmdir()


def sleeping(share: float) -> Callable[[float], None] | None:
    """A function that sleeps after work, so that it takes as long as with a share of a processor.

    Args:
        share: above 0, up to 1; at 1 there is none.
    """
    if share == 1:
        return None

    def slow(seconds: float) -> None:
        time.sleep(seconds * (1 / share - 1))

    return slow


def _own_group(root: Path) -> tuple[Path, bool]:
    """The control group of this process that limits its processor time, and whether it is of version 2."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            place = next((root / name for name in (controllers, "cpu") if (root / name).is_dir()), None)
            if place is not None:
                return place / path.lstrip("/"), False
    if not (root / "cgroup.controllers").exists():
        raise OSError(None, "no control group limits the processor")
    own = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        if line.startswith("0:")
    )
    return root / own.lstrip("/"), True


def _limit(group: Path, is_v2: bool, share: float) -> None:
    period = round(_QUOTA / share)
    if is_v2:
        (group / "cpu.max").write_text(f"{_QUOTA} {period}")
        return
    (group / "cpu.cfs_period_us").write_text(str(period))
    (group / "cpu.cfs_quota_us").write_text(str(_QUOTA))


def _impossible(error: OSError) -> UserError:
    return UserError(
        f"--cpu-share by quota is not possible here ({error.strerror or error}); it needs a control group "
        "with the controller cpu that may be written, as root has it; give --slow-by sleep"
    )
