import os
import shutil
import tempfile

import pytest
import torch

# Small networks gain nothing from threads, and tests that run side by side lose by them.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """What neq remembers, where it looks for data sets, whom it tells: no affair of the one who tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ["WANDB_MODE"] = "disabled"
    os.environ["NEQ_CACHE"] = tempfile.mkdtemp(prefix="neq-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["NEQ_CACHE"], ignore_errors=True)
