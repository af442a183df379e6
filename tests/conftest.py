import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same cases every time: a red run is a fault of the change. --hypothesis-profile default draws others.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
# Small networks gain nothing from threads, and tests that run side by side lose by them; processes that tests
# start inherit the number.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


def pytest_configure(config: pytest.Config) -> None:
    """What neq remembers, where it looks for data sets, whom it tells: no affair of the one who tests."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in the background of a shell: what the tests start would not hear Ctrl-C either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ["WANDB_MODE"] = "disabled"
    os.environ["NEQ_CACHE"] = tempfile.mkdtemp(prefix="neq-cache-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: none is left to one worker at the end, while the others wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)  # before its fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test's weights and images are the same every time, whichever tests run before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["NEQ_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def small_runs_draw_nothing() -> Iterator[None]:
    """Runs of tests draw no pictures, except in `tests.toys.drawing`."""
    from tests.toys import draw_nothing, drawing

    with drawing(draw_nothing):
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run of one epoch; tests read it and leave it as it is."""
    from neq.cli import main
    from tests.toys import TINY_RUN, drawing

    folder = tmp_path_factory.mktemp("tiny") / "run"
    with drawing():
        assert main(["train", *TINY_RUN, "--run-dir", str(folder)]) == 0
    return folder
