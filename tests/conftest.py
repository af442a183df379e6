import os
import shutil
import tempfile

import pytest
import torch

# Small networks gain nothing from threads, and tests that run side by side lose by them.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """What neq remembers, and where it looks for data sets, is no affair of the person who tests."""
    os.environ["NEQ_CACHE"] = tempfile.mkdtemp(prefix="neq-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["NEQ_CACHE"], ignore_errors=True)
