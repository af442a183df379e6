"""A process that is killed at any moment of writing its checkpoints leaves whole ones."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.forked_runs import CONTEXT, code_of
from neq.training import Checkpoints, load_checkpoint

pytestmark = pytest.mark.slow

FIRST, SECOND, THIRD = (
    {"network": {"w": torch.full((1000,), float(number))}, "progress": {"epoch": number}}
    for number in (1, 2, 3)
)


class Moments:
    """Counts the moments of writing, and kills the process at one of them.

    Args:
        deadly: number of the moment; none: only count.
        log: file that gets the name of every moment.
    """

    def __init__(self, deadly, log):
        self.deadly, self.log, self.count = deadly, log, 0

    def __call__(self, name):
        with self.log.open("a") as file:
            file.write(f"{name}\n")
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, owner, name):
        """A moment before and one after every call of a function."""
        real = getattr(owner, name)

        def call(*args, **kwargs):
            self(f"before {name}")
            result = real(*args, **kwargs)
            self(f"after {name}")
            return result

        setattr(owner, name, call)

    def half_way(self):
        """A moment before a file is opened, and one when half of what is written to it is on the disk."""
        real, moments, open_path = Path.open, self, Path.open

        def opened(path, mode="r", *args, **kwargs):
            if mode != "wb":
                return real(path, mode, *args, **kwargs)
            moments("before the temporary file")
            file = open_path(path, mode, *args, **kwargs)
            return Halving(file, moments)

        Path.open = opened


class Halving:
    def __init__(self, file, moments):
        self._file, self._moments = file, moments

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._moments("half way")
        self._file.write(content[len(content) // 2 :])


def save_with_moments(folder, state, is_best, deadly, log):
    moments = Moments(deadly, log)
    moments.half_way()
    for name in ("fsync", "replace"):
        moments.around(os, name)
    Checkpoints(folder).save(state, is_best)


def killed_at(deadly, folder, state, is_best):
    """Saves in another process that is killed at a moment; gives its exit code and the moments it had."""
    log = folder.with_suffix(".log")
    process = CONTEXT.Process(target=partial(save_with_moments, folder, state, is_best, deadly, log))
    process.start()
    return code_of(process), log.read_text().splitlines()


@pytest.mark.parametrize("there_before", [0, 1, 2])
def test_killed_at_every_moment_of_a_save(tmp_path, there_before):
    """Before the temporary file, half way, before and after each rename, between last and best."""
    whole = tmp_path / "whole"
    prepare(whole, there_before)
    code, moments = killed_at(None, whole, THIRD, True)
    assert code == 0
    assert Checkpoints(whole).load_last()["progress"]["epoch"] == 3
    # best.safetensors, best.pt, last.pt, and the renaming of the former last.pt.
    assert moments.count("half way") == 3
    assert moments.count("before replace") == (3 if there_before == 0 else 4)
    assert len(moments) >= 24
    for deadly, name in enumerate(moments):
        folder = tmp_path / str(deadly)
        prepare(folder, there_before)
        code, had = killed_at(deadly, folder, THIRD, True)
        assert code == -signal.SIGKILL
        assert had == moments[: deadly + 1], name
        state = Checkpoints(folder).load_last()
        epoch = 0 if state is None else state["progress"]["epoch"]
        assert epoch in (there_before, 3), name
        if state is not None:
            assert torch.equal(state["network"]["w"], torch.full((1000,), float(epoch)))
        for path in folder.glob("*.pt"):
            load_checkpoint(path)  # each whole, whichever it is
        # The next save works, whatever was left lying about.
        Checkpoints(folder).save(THIRD, True)
        assert Checkpoints(folder).load_last()["progress"]["epoch"] == 3


def prepare(folder, saves):
    folder.mkdir()
    for state in (FIRST, SECOND)[:saves]:
        Checkpoints(folder).save(state, False)
