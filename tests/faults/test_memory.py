"""Memory is predicted; where it runs out, one line says what was predicted, measured, and what would fit."""

import errno
import re
import resource
from functools import partial

import psutil
import pytest
import torch

from benchmarks.forked_runs import code_of, start
from benchmarks.memory_prediction import measure
from neq.cli import main
from neq.experiment.memory_report import OutOfMemory, memory_explained, predicted_line
from neq.training import is_out_of_memory, load_checkpoint, predict, train, what_fits
from neq.training import loop as loop_module
from neq.training import steps as steps_module
from neq.training.distributed import ProcessGroup
from neq.training.memory import _TAKEN
from neq.utils.malloc import can_give_back
from tests.training.runs import run_of

TIMES, MORE = _TAKEN["fast"]


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_what_onednn_says_is_about_memory_where_there_is_little(monkeypatch):
    for limit, is_one in ((2**60, False), (2**20, True)):
        monkeypatch.setattr("neq.training.memory.memory_limit", lambda device, limit=limit: limit)
        assert is_out_of_memory(RuntimeError("could not create a primitive")) is is_one


@pytest.mark.slow
def test_the_prediction_is_the_sum_of_what_is_there(tmp_path):
    with run_of(tmp_path, neuron_selection="velocity") as (run, _):
        memory = predict(run)
        train(run)
        state = run.checkpoints.load_last()
        tensors = run.network.state_dict().values()
    assert memory.weights == sum(tensor.nbytes for tensor in tensors)
    assert memory.batch == 32 * (4 * 3 * 12 * 12 + 8)
    momenta = [entry["state"]["momentum_buffer"].nbytes for entry in state["progress"]["optimizer"].values()]
    assert memory.optimizer == memory.gradients
    assert memory.optimizer == pytest.approx(sum(momenta), rel=0.2)  # other neurons in the last epoch
    assert memory.kept <= state["progress"]["saved_bytes"] * 1.2
    assert memory.before > 0
    assert memory.peak == memory.weights + memory.rows + memory.optimizer + memory.before + max(
        memory.step, memory.measuring
    )


def test_an_evaluation_of_large_batches_counts(tmp_path):
    small = {"neuron_selection": "head", "base_batch_size": 128, "micro_batch_size": 4}
    with run_of(tmp_path, **small) as (run, _):
        whole = predict(run)
    with run_of(tmp_path, **small, test_batch_size=4) as (run, _):
        cut = predict(run)
    assert whole.evaluation == 32 * cut.evaluation
    assert whole.evaluation > whole.step
    assert whole.peak - cut.peak == whole.evaluation - max(cut.step, cut.evaluation)


def test_without_velocity_nothing_is_kept_for_it(tmp_path):
    with run_of(tmp_path, neuron_selection="random") as (run, _):
        memory = predict(run)
    assert memory.before == memory.measuring == 0


@pytest.mark.slow
def test_what_fits_fits_by_prediction(tmp_path):
    with run_of(tmp_path, neuron_selection="random", base_batch_size=64) as (run, _):
        peak = predict(run).peak
        images, budget = what_fits(run, int(TIMES * 0.4 * peak) + MORE)
        assert images in (8, 16)
        assert predict(run, images).peak <= 0.4 * peak < predict(run, 2 * images).peak
        images, budget = what_fits(run, int(TIMES * 0.95 * peak) + MORE)
        assert images == 32
        assert 0 < budget < predict(run).kept
        assert what_fits(run, 1000) == (None, None)
    with run_of(
        tmp_path, neuron_selection="random", base_batch_size=64, budget=budget, budget_unit="bytes"
    ) as (
        run,
        _,
    ):
        assert predict(run).peak <= 0.95 * peak


@pytest.mark.slow
def test_what_fits_gives_every_process_two_images(tmp_path):
    with run_of(
        tmp_path, ProcessGroup(0, 4), neuron_selection="random", base_batch_size=64, sync_batch_norm=False
    ) as (run, _):
        for images, fitting in ((4, 16), (2, 8), (1, None)):
            room = TIMES * predict(run, images).peak + MORE + 1
            assert what_fits(run, int(room))[0] == fitting


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()],
)
def test_the_line_says_what_to_do_and_the_last_good_state_is_kept(tmp_path, monkeypatch, error):
    with run_of(tmp_path, neuron_selection="velocity") as (run, diary):
        real = steps_module.train_step

        def greedy(*args):
            if len(diary.steps) == 40:
                raise error
            return real(*args)

        monkeypatch.setattr(steps_module, "train_step", greedy)
        monkeypatch.setitem(_TAKEN, "tight", (1.0, 0))  # MiB are nothing to a real network
        monkeypatch.setattr("neq.experiment.memory_report.memory_limit", lambda device: 0)
        monkeypatch.setattr(
            "neq.experiment.memory_report.held_now",
            lambda device: -int(0.8 * TIMES * predict(run).peak) - MORE,
        )
        with pytest.raises(OutOfMemory) as raised, memory_explained(run):
            train(run)
        assert run.checkpoints.load_last()["progress"]["epoch"] == 1
    line = str(raised.value)
    assert re.search(
        r"predicted [\d,]+ MiB of tensors, measured [\d,]+ MiB \(maximum of the process\) of 0 MiB", line
    )
    assert "; --resume --memory tight should fit, with longer steps; or --base_batch_size 16" in line
    assert "16 should fit, as a run of its own" in line
    assert "\n" not in line


def test_a_run_that_is_tight_already_is_not_told_to_be(tmp_path, monkeypatch):
    with run_of(tmp_path, neuron_selection="random", memory="tight") as (run, _):
        monkeypatch.setattr("neq.experiment.memory_report.memory_limit", lambda device: 2**40)
        with pytest.raises(OutOfMemory) as raised, memory_explained(run):
            raise MemoryError
    assert "tight" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.skipif(not can_give_back(), reason="another C library than GNU's")
def test_a_tight_process_takes_what_its_tensors_take():
    settings = {"net_name": "mbv2", "image_size": 128, "base_batch_size": 16}
    predicted, fast, _ = measure(settings, "cpu", "fast")
    assert predicted < fast <= TIMES * predicted + MORE
    times, more = _TAKEN["tight"]
    assert measure(settings, "cpu", "tight")[1] <= times * predicted + more


def test_where_the_c_library_cannot_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not can_give_back()
    assert main(["train", "--dry-run", "--memory", "tight"]) == 2
    assert "memory 'tight' needs the GNU C library" in capsys.readouterr().err


def test_other_errors_pass(tmp_path):
    with (
        run_of(tmp_path, neuron_selection="random") as (run, _),
        pytest.raises(RuntimeError, match="shapes"),
        memory_explained(run),
    ):
        raise RuntimeError("shapes do not fit")


def limit(extra, epoch):
    """From an epoch on the process may take so many bytes more than it has."""
    real = loop_module._train_epoch

    def limited(run, progress, number):
        if number == epoch:
            now = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))
            steps_module.train_step = partial(with_ballast, steps_module.train_step)
        return real(run, progress, number)

    loop_module._train_epoch = limited


def with_ballast(step, *args):
    """A step that needs 512 MiB more."""
    torch.empty(2**29, dtype=torch.uint8)
    return step(*args)


@pytest.mark.slow
def test_a_process_that_may_take_no_more(tmp_path):
    """The real thing: RLIMIT_AS, and torch's own allocator that fails."""
    folder = tmp_path / "run"
    process = start(folder, before=partial(limit, 2**28, 1))
    assert code_of(process) == 1
    text = folder.with_suffix(".txt").read_text()
    (line,) = [line for line in text.splitlines() if "out of memory" in line]
    assert re.search(r"predicted [\d,]+ MiB of tensors, measured [\d,]+ MiB .* of [\d,]+ MiB", line)
    assert "OutOfMemory; --debug shows where" in line
    assert "Traceback" not in text
    assert load_checkpoint(folder / "checkpoint" / "last.pt")["progress"]["epoch"] == 1
    assert code_of(start(folder, "--resume")) == 0


@pytest.mark.slow
def test_dry_run_predicts_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "--image_size", "16", "--device", "cpu"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory: tensors")]
    line, process = line.split("; for them a process")
    peak, *parts = (float(number) for number in re.findall(r"[\d.]+(?= )", line))
    assert peak == pytest.approx(sum(parts), abs=0.5)
    fast, tight = (int(number) for number in re.findall(r"\d+(?= MiB)", process))
    assert peak < tight < fast
    assert "values before the epoch" in line
    with run_of(tmp_path / "run", neuron_selection="random") as (run, _):
        assert "velocity" not in predicted_line(run)
