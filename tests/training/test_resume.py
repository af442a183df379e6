"""A checkpoint that is whole, but not one of the run, is refused in one line."""

import copy

import pytest
import torch

from neq.training import Stopped, restore, train
from neq.utils.errors import UserError
from tests.training.runs import run_of

SETTINGS = {"neuron_selection": "velocity", "n_epochs": 2}


@pytest.fixture(scope="module", params=[False, True], ids=["after an epoch", "in mid-epoch"])
def saved(request, tmp_path_factory):
    """A run's checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    with run_of(folder, **SETTINGS) as (run, diary):

        def stop(epoch, step, steps):
            run.stop.number = 15 if request.param and (epoch, step) == (1, 4) else 0

        diary.step = stop
        if request.param:
            with pytest.raises(Stopped):
                train(run)
        else:
            train(run)
        return folder, run.checkpoints.load_last()


def bytes_of(text):
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


def put(state, path, value):
    *way, last = path.split(".")
    for name in way:
        state = state[name]
    state[last] = value


HOSTILE: dict[str, tuple[object, ...]] = {
    "network": (None, [], {}, {"stem.weight": torch.ones(1)}, 7),
    "progress": (None, [], {}, {"epoch": 1}, "all"),
    "progress.epoch": (None, -1, 3, 1.5, True, "1", torch.ones(()), [1]),
    "progress.chosen": (None, 1, torch.ones(3, dtype=torch.bool), torch.ones(64)),
    "progress.policy": (None,),
    "progress.optimizer": (
        *(None, [1], {"stem.weight": 3}, {"stem.weight": {}}, {"no.weight": {"index": None, "axis": 0}}),
        {"stem.weight": {"index": torch.tensor([99]), "axis": 0, "state": {}}},
        {"stem.weight": {"index": None, "axis": 0, "state": {"momentum_buffer": torch.ones(3)}}},
        {"stem.weight": {"index": None, "axis": 0, "state": None}},
    ),
    "progress.task_optimizer": (None, [1], {"centers": {"exp_avg": torch.ones(1)}}, {"centers": 3}),
    "progress.velocity": (1, {}, {"phi": 1}, {"velocity": torch.ones(3)}),
    "progress.best": (None, [], 3, {"val_top1": "high"}),
    "progress.budget_used_max": (None, "much", 1.5),
    "progress.selected_parameters_max": (None, [1]),
    "progress.step_seconds": (None, 1.0, ["1"], [None]),
    "progress.trained_beside_max": (None, [], {"norms": "many"}),
    "progress.epoch_state": (1, [], {}, {"step": 3}),
    "progress.step_settings": (None, [1], {1: 2}),
    "progress.unknown": (1,),
    "latency": (None, 1, [], {}, {"nanoseconds": {"step": -1.0}, "error": 0.0}),
}
# Damaged in ways that torch.load ends on in ways of their own.
OF_RANKS = (b"", bytes(9), b"\x80\x02", b"\x80\x02X\x05\x00")
OF_MID_EPOCH: dict[str, tuple[object, ...]] = {
    "progress.epoch_state.choice": (None, {}, {"chosen": 1}, torch.ones(3)),
    "progress.epoch_state.choice.chosen": (None, torch.ones(64), [True]),
    "progress.epoch_state.step": (None, -1, 10**6, 1.0, "4"),
    "progress.epoch_state.losses": (None, [], torch.ones(3), 1),
    "progress.epoch_state.choice.used": (None, "much"),
    "progress.epoch_state.counts": (None, [1], {"hits": "many"}),
    "progress.epoch_state.seconds": (None, 3, ["1"]),
    "progress.epoch_state.random": (None, {}, {"cpu": torch.ones(3)}, 3),
    "progress.epoch_state.before": (
        *(1, {"stem.weight": 1}, {"stem.weight": {}}),
        {"no.weight": {"index": None, "axis": 0, "values": torch.ones(1)}},
        {"stem.weight": {"index": None, "axis": 0, "values": torch.ones(1)}},
    ),
    "ranks": (None, 1, [1], [torch.ones(3)] * 2, *([bytes_of(text)] * 2 for text in OF_RANKS)),
}


def test_what_is_whole_is_taken(saved, tmp_path):
    with run_of(tmp_path, **SETTINGS) as (run, _):
        progress = restore(run, saved[1])
        assert progress.epoch == saved[1]["progress"]["epoch"]
        assert torch.equal(run.network.stem.weight, saved[1]["network"]["stem.weight"])
        assert restore(run, None).epoch == 0


def test_what_no_run_of_this_kind_writes_is_refused_in_one_line(saved, tmp_path):
    folder, whole = saved
    in_mid_epoch = whole["progress"]["epoch_state"] is not None
    with run_of(folder, **SETTINGS) as (run, _):
        hostile = HOSTILE | (OF_MID_EPOCH if in_mid_epoch else {})
        for path, value in ((path, value) for path, values in hostile.items() for value in values):
            state = copy.deepcopy(whole)
            put(state, path, value)
            with pytest.raises(UserError) as found:
                restore(run, state)
            line = str(found.value)
            assert line.startswith(f"the checkpoint in {folder} is not one of this run ("), path
            assert "start the run again with --overwrite" in line
            assert "\n" not in line


def test_a_checkpoint_of_another_run_is_refused_by_name(saved, tmp_path):
    with run_of(tmp_path, **SETTINGS) as (run, _):
        run.checkpoints.run = "digits/mbv2/0-abc"
        with pytest.raises(UserError, match=r"is of the run 'pets/mbv2/0-abc', not of 'digits/mbv2/0-abc'; "):
            restore(run, {**saved[1], "run": "pets/mbv2/0-abc"})
        for named in ({}, {"run": None}, {"run": "digits/mbv2/0-abc"}):  # those of earlier versions name none
            assert restore(run, {**saved[1], **named}).epoch == saved[1]["progress"]["epoch"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        torch.AcceleratorError("no device"),
    ],
)
def test_a_machine_that_fails_is_not_told_as_a_wrong_checkpoint(saved, tmp_path, monkeypatch, error):
    """Whose line offers to start again."""

    def fail(state):
        raise error

    with run_of(tmp_path, **SETTINGS) as (run, _):
        monkeypatch.setattr(run.network, "load_state_dict", fail)
        with pytest.raises(type(error)):
            restore(run, saved[1])
