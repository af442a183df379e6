"""Two devices in two network namespaces: what they say goes over a link that is no loopback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.partition.devices import latency_of, write_toy

pytestmark = pytest.mark.slow
NAMES = tuple(f"neq-test-{os.getpid()}-{rank}" for rank in (0, 1))
LINK = (
    "netns add {0}",
    "netns add {1}",
    "link add neqt0 netns {0} type veth peer name neqt1 netns {1}",
    "-n {0} addr add 10.213.77.1/24 dev neqt0",
    "-n {1} addr add 10.213.77.2/24 dev neqt1",
    "-n {0} link set neqt0 up",
    "-n {1} link set neqt1 up",
    "-n {0} link set lo up",
    "-n {1} link set lo up",
)


def ip(command):
    return subprocess.run(["ip", *command.split()], capture_output=True, text=True)


@pytest.fixture
def namespaces():
    """Two namespaces with a link between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip")
    try:
        for each in LINK:
            made = ip(each.format(*NAMES))
            if made.returncode:
                pytest.skip(f"no network namespaces here ({made.stderr.strip()})")
        yield NAMES
    finally:
        for name in NAMES:
            ip(f"netns del {name}")


def start(name, *command):
    return subprocess.Popen(
        ["ip", "netns", "exec", name, sys.executable, "-m", "neq", "partition", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*processes):
    """Standard error of all, which end with 0."""
    try:
        found = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], found
    return found


def test_devices_of_two_namespaces(namespaces, tmp_path):
    first, second = namespaces
    split, at = write_toy(tmp_path / "split"), "10.213.77.1:29600"
    flags = ["--address", at, "--timeout=120"]
    ended(
        start(first, "run", split, "--rank=0", *flags, "--repeats=3", f"--latency={tmp_path}/latency.json"),
        start(second, "run", split, "--rank=1", *flags),
    )
    assert latency_of(Path(tmp_path, "latency.json"))["images"] == 3
