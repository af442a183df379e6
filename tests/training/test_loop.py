import copy
import json
import math
import statistics
import time
from dataclasses import replace

import pytest
import torch

from neq.config import resolve
from neq.selection import listed_parameters
from neq.training import TrainingDiverged, load_checkpoint, measurement, restore, train
from neq.training import loop as loop_module
from neq.utils.errors import UserError
from tests.training.runs import LISTS, run_of, train_until, without_times


def scored(top1, loss=1.0):
    return {"top1": top1, "loss": loss}


def poison(run, when):
    """The loss of a step is not a number when the condition holds."""
    real = run.task.step

    def step(forward, batch):
        output = real(forward, batch)
        return replace(output, loss=output.loss * (float("nan") if when() else 1.0))

    run.task.step = step


def outcome(folder, **settings):
    """Summary, reports and final weights of a run, by default of few steps."""
    with run_of(folder, **{"base_batch_size": 128, **settings}) as (run, diary):
        summary = train(run)
        return summary, diary, copy.deepcopy(run.network.state_dict()), run


@pytest.mark.parametrize("selection", ["velocity", "random", "full", "SU"])
@pytest.mark.parametrize("initialization", ["random", "full", "SU"])
def test_no_epoch_exceeds_the_budget(tmp_path, selection, initialization):
    settings = {**LISTS, "neuron_selection": selection, "initialization": initialization, "n_epochs": 3}
    summary, diary, _, run = outcome(tmp_path, **settings)
    listed = listed_parameters(run.table, run.scheme)
    assert summary["budget"] == round(0.3 * run.table.total_parameters)
    for report in diary.reports:
        policy = initialization if report.epoch == 0 else selection
        used = int(run.table.parameters[report.chosen].sum())
        saved = report.metrics["Saved parameters"]
        assert saved["Number of saved parameters"] == used <= summary["budget"]
        if policy == "SU":
            assert used == listed
            assert saved["Parameters delta with Budget"] == 0
        else:
            passed_over = run.table.parameters[~report.chosen]
            assert summary["budget"] - used < int(passed_over.min())
    assert summary["selected_parameters_max"] == max(
        report.metrics["Saved parameters"]["Number of saved parameters"] for report in diary.reports
    )


@pytest.mark.parametrize("initialization", ["SU", "full", "random"])
def test_a_static_choice_stays_for_the_whole_run(tmp_path, initialization):
    """Fault 4: SU masks were erased after the first epoch, so everything trained."""
    settings = {**LISTS, "neuron_selection": "SU", "initialization": initialization, "n_epochs": 4}
    with run_of(tmp_path, **settings, norm_mode="frozen", base_batch_size=128) as (run, diary):
        kept = [copy.deepcopy(run.network.state_dict())]
        run.checkpoints.save = lambda state, is_best: kept.append(copy.deepcopy(state["network"]))
        train(run)
    first = 0 if initialization == "SU" else 1
    for before, after, report in zip(kept[first:], kept[first + 1 :], diary.reports[first:], strict=False):
        assert torch.equal(report.chosen, diary.reports[first].chosen)
        for layer in run.table.layers:
            moved = (before[f"{layer.name}.weight"] != after[f"{layer.name}.weight"]).flatten(1).any(1)
            assert torch.equal(moved, report.chosen[run.table.slice_of(layer.name)])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_frozen_rows_are_bit_identical_in_every_epoch(tmp_path, optimizer):
    """Fault 2, in the loop itself."""
    settings = {"optimizer_name": optimizer, "base_lr": 0.01, "weight_decay": 0.01, "base_batch_size": 128}
    with run_of(tmp_path, neuron_selection="velocity", **settings) as (run, diary):
        kept = [copy.deepcopy(run.network.state_dict())]
        run.checkpoints.save = lambda state, is_best: kept.append(copy.deepcopy(state["network"]))
        train(run)
    for before, after, report in zip(kept[:-1], kept[1:], diary.reports, strict=True):
        for layer in run.table.layers:
            moved = (before[f"{layer.name}.weight"] != after[f"{layer.name}.weight"]).flatten(1).any(1)
            assert torch.equal(moved, report.chosen[run.table.slice_of(layer.name)]), layer.name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_metrics_twice(tmp_path):
    first = outcome(tmp_path / "a", neuron_selection="velocity")
    torch.manual_seed(999)
    again = outcome(tmp_path / "b", neuron_selection="velocity")
    assert without_times(first[0]) == without_times(again[0])
    assert [without_times(report.metrics) for report in first[1].reports] == [
        without_times(report.metrics) for report in again[1].reports
    ]
    assert all(torch.equal(tensor, again[2][name]) for name, tensor in first[2].items())
    other = outcome(tmp_path / "c", neuron_selection="velocity", manual_seed=1)
    assert without_times(first[0]) != without_times(other[0])


def test_policies_at_one_seed_see_the_same_batches(tmp_path):
    seen = {}
    for policy in ("velocity", "random", "full"):
        with run_of(tmp_path / policy, neuron_selection=policy, n_epochs=2, base_batch_size=128) as (run, _):
            batches = []
            real = run.data.train_batches

            def spy(epoch, first, real=real, batches=batches):
                for images, labels in real(epoch, first):
                    batches.append((images.double().sum().item(), labels.tolist()))
                    yield images, labels

            run.data.train_batches = spy
            train(run)
            seen[policy] = batches
    assert seen["velocity"] == seen["random"] == seen["full"]
    assert len({json.dumps(entry) for entry in seen["full"]}) == len(seen["full"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"neuron_selection": "velocity"},
        {
            "neuron_selection": "velocity",
            "velocity_rule": "reference",
            "optimizer_name": "adam",
            "base_lr": 0.01,
        },
        {"neuron_selection": "random"},
        {"neuron_selection": "SU", **LISTS},
        {"neuron_selection": "velocity", "budget": "400kB", "cost_aware": True},
        {"neuron_selection": "random", "ratio": 0.4, "budget_unit": "macs", "unit": "input_channel"},
        {"neuron_selection": "random", "ratio": 0.6, "budget_unit": "bytes", "saved_precision": "bf16"},
    ],
)
def test_a_resumed_run_is_bit_identical(tmp_path, settings):
    """Fault 8: a resumed run forgot masks, velocities and random state, and updated everything."""
    settings = {**settings, "base_batch_size": 128}
    whole, diary, weights, _ = outcome(tmp_path / "whole", **settings)

    for stop in (1, 2):
        folder = tmp_path / f"stopped at {stop}"
        with run_of(folder, **settings) as (run, part_diary):
            train_until(run, part_diary, stop)
        with run_of(folder, **settings) as (run, rest_diary):
            resumed = train(run, restore(run, run.checkpoints.load_last()))
        assert without_times(resumed) == without_times(whole)
        reports = part_diary.reports + rest_diary.reports
        assert [without_times(report.metrics) for report in reports] == [
            without_times(report.metrics) for report in diary.reports
        ]
        assert all(torch.equal(a.chosen, b.chosen) for a, b in zip(reports, diary.reports, strict=True))
        assert all(torch.equal(tensor, weights[name]) for name, tensor in run.network.state_dict().items())


def test_the_best_epoch_is_chosen_by_validation_and_its_test_figure_is_its_own(tmp_path, monkeypatch):
    """Fault 9: chosen on the test set, and a test figure left over from another epoch."""
    figures = {"validation": iter([50.0, 70.0, 60.0, 70.0]), "test": iter([10.0, 20.0, 99.0])}
    monkeypatch.setattr(measurement, "evaluate", lambda run, split: scored(next(figures[split])))
    settings = {"neuron_selection": "random", "n_epochs": 4, "test_per_epochs": 100}
    summary, diary, _, run = outcome(tmp_path, **settings)
    # Epochs 0 and 1 are new bests and are tested; 2 is not; 3 only ties, and is tested as the last one.
    assert (summary["best_epoch"], summary["val_top1"], summary["test_top1"]) == (1, 70.0, 20.0)
    assert ["test" in report.metrics for report in diary.reports] == [True, True, False, True]
    last = diary.reports[3].metrics["test"]
    assert last["test/top1_at_valid_best"] == 20.0
    assert last["test/best"] == last["test/top1"] == 99.0
    assert load_checkpoint(run.checkpoints.best)["progress"]["best"]["epoch"] == 1
    assert [report.metrics["valid"]["val/best"] for report in diary.reports] == [50, 70, 70, 70]


def test_of_equal_scores_the_lower_validation_loss_is_best(tmp_path, monkeypatch):
    """A few dozen validation photos tie often, mostly with an early epoch of a higher loss."""
    figures = {
        "validation": iter([scored(70.0, 0.9), scored(70.0, 0.5), scored(70.0, 0.6)]),
        "test": iter([scored(10.0), scored(20.0), scored(30.0)]),
    }
    monkeypatch.setattr(measurement, "evaluate", lambda run, split: next(figures[split]))
    summary, diary, _, _ = outcome(tmp_path, neuron_selection="random", n_epochs=3, test_per_epochs=100)
    assert (summary["best_epoch"], summary["val_loss"], summary["test_top1"]) == (1, 0.5, 20.0)
    assert ["test" in report.metrics for report in diary.reports] == [True, True, True]


@pytest.mark.parametrize(
    ("validation", "patience", "epochs", "best"),
    [
        ([50, 40, 60, 55, 58, 70], 2, 5, 2),  # an epoch that is better starts the wait again
        ([50, 40, 40, 40, 60, 60], 3, 4, 0),
        ([50, 40, 40, 60, 60, 50], 3, 6, 3),
        ([50, 40, 60, 55, 58, 57], 4, 6, 2),  # waits three epochs, not four
        ([50, 49, 60, 60, 60, 60], 1, 2, 0),
    ],
)
def test_training_ends_after_patience_epochs_without_a_better_one(
    tmp_path, monkeypatch, validation, patience, epochs, best
):
    figures = iter(validation)
    found = {"validation": lambda: scored(float(next(figures))), "test": lambda: scored(10.0)}
    monkeypatch.setattr(measurement, "evaluate", lambda run, split: found[split]())
    settings = {"neuron_selection": "random", "n_epochs": 6, "patience": patience}
    summary, diary, _, run = outcome(tmp_path, **settings)
    assert (summary["epochs"], summary["best_epoch"]) == (epochs, best)
    assert len(diary.reports) == epochs
    # A run that is stopped before its summary is written trains no further epoch.
    assert train(run, restore(run, run.checkpoints.load_last()))["epochs"] == epochs
    assert len(diary.reports) == epochs


def test_patience_needs_a_validation_split():
    with pytest.raises(UserError, match="patience 3 waits for a better validation, which use_validation"):
        resolve({}, {"patience": 3, "use_validation": False})
    with pytest.raises(UserError, match="patience 0 is not allowed"):
        resolve({}, {"patience": 0})


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    """Fault 9: without validation the best was chosen on the test set."""
    summary, diary, weights, run = outcome(tmp_path, neuron_selection="velocity", use_validation=False)
    assert summary["best_epoch"] == 2
    assert summary["val_top1"] is None
    assert all("valid" not in report.metrics for report in diary.reports)
    best = load_checkpoint(run.checkpoints.best)["network"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in best.items())


def test_metrics_have_the_published_key_paths(tmp_path):
    _, diary, _, run = outcome(tmp_path, neuron_selection="velocity")
    metrics = diary.reports[1].metrics
    layers = {layer.name for layer in run.table.layers}
    assert metrics["epochs"] == 1
    assert set(metrics["train"]) == {"train/top1", "train/loss", "train/lr"}
    assert set(metrics["valid"]) == {"val/top1", "val/loss", "val/best"}
    assert set(metrics["test"]) == {"test/top1", "test/loss", "test/best", "test/top1_at_valid_best"}
    assert set(metrics["Saved parameters"]) == {
        "Number of saved parameters",
        "Parameters delta with Budget",
        "Number of saved neurons",
    }
    for key in ("Perc of frozen conv neurons", "FLOPS stats"):
        assert set(metrics[key]) == {"total", "layer"}
        assert set(metrics[key]["layer"]) == layers
    chosen = diary.reports[1].chosen
    assert metrics["Perc of frozen conv neurons"]["total"] == pytest.approx(
        100 * (~chosen).double().mean().item()
    )
    assert metrics["lr"] == metrics["train"]["train/lr"] > 0


def test_step_seconds_are_the_median_over_the_epochs(tmp_path):
    """Of an even number of epochs it was the upper one of the middle two."""
    summary, diary, _, _ = outcome(tmp_path, neuron_selection="random", n_epochs=2)
    assert summary["step_seconds"] == statistics.median(
        report.metrics["step_seconds"] for report in diary.reports
    )


def test_norms_and_head_are_reported_beside_the_budget(tmp_path):
    """Fault 6: batch norm and head always trained, outside any accounting."""
    for norm_mode, norms in (("train", 2 * (8 + 12 + 24)), ("frozen", 0)):
        summary, diary, _, _ = outcome(tmp_path / norm_mode, neuron_selection="random", norm_mode=norm_mode)
        beside = diary.reports[0].metrics["Trained beside the budget"]
        assert beside["norms"] == norms == summary["trained_beside_max"]["norms"]
        assert beside["head"] == 170


def test_saved_bytes_grow_with_the_selection(tmp_path):
    """Fault 1: what a small budget saves is really not stored."""
    saved = [
        outcome(tmp_path / str(ratio), neuron_selection="random", ratio=ratio, norm_mode="frozen")[0][
            "saved_bytes"
        ]
        for ratio in (0, 0.02, 1)
    ]
    assert 0 < saved[0] < saved[1] < saved[2]


def test_a_diverging_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    with run_of(tmp_path, neuron_selection="random") as (run, diary):
        poison(run, lambda: len(diary.steps) == 40)
        monkeypatch.setattr(measurement, "evaluate", lambda run, split: scored(50.0))
        with pytest.raises(TrainingDiverged, match=r"loss is nan in epoch 1, step 5, at learning rate 0\.0"):
            train(run)
        state = run.checkpoints.load_last()
    assert state["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


def test_weights_spoilt_by_the_last_step_are_not_saved(tmp_path, monkeypatch):
    with run_of(tmp_path, neuron_selection="random") as (run, diary):
        real = loop_module.make_optimizer

        def make(plan, settings, extra):
            optimizer = real(plan, settings, extra)

            def spoil(*_):
                if len(diary.steps) == 69:  # the last step of the second epoch, its loss still finite
                    next(iter(plan.parameters())).data[0] = float("inf")

            optimizer.register_step_post_hook(spoil)
            return optimizer

        monkeypatch.setattr(loop_module, "make_optimizer", make)
        with pytest.raises(TrainingDiverged, match="no longer finite in epoch 1, after step 34"):
            train(run)
        state = run.checkpoints.load_last()
    assert state["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


def test_bf16_trains(tmp_path):
    _, diary, _, _ = outcome(tmp_path, neuron_selection="velocity", precision="bf16", base_batch_size=32)
    first, *_, last = (report.metrics["train"]["train/loss"] for report in diary.reports)
    assert last < first
    assert last < math.log(10)  # of guessing among ten classes


def test_the_summary_has_what_results_need(tmp_path):
    begin = time.monotonic()
    summary, diary, _, _ = outcome(tmp_path, neuron_selection="velocity", base_batch_size=32)
    elapsed = time.monotonic() - begin
    assert diary.summary == summary
    assert {
        "dataset", "net_name", "neuron_selection", "initialization", "scheme", "budget", "seed", "best_epoch",
        "val_top1", "test_top1", "norm_mode", "selected_parameters_max", "selectable_parameters",
        "step_seconds", "saved_bytes", "peak_memory_bytes", "peak_memory_kind",
    } <= set(summary)  # fmt: skip
    # In every epoch half of the 35 steps, or more, took the epoch's median; of the epochs likewise.
    assert 0 < summary["step_seconds"] < elapsed / 2 / 18
    assert summary["peak_memory_bytes"] > 2**20
    assert summary["peak_memory_kind"] == "maximum of the process"


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["frontier", "frozen"])
def test_a_memory_budget_holds_in_every_epoch_by_what_was_measured(tmp_path, norm_mode):
    settings = {"budget": "60kB", "cost_aware": True, "neuron_selection": "velocity", "norm_mode": norm_mode}
    summary, diary, _, _ = outcome(tmp_path, base_batch_size=32, **settings)
    assert summary["budget"] == 60_000
    assert summary["budget_unit"] == "bytes"
    assert 5_000 < summary["budget_used_max"] <= 60_000
    for report in diary.reports:
        assert report.metrics["Budget"]["used"] <= report.metrics["Budget"]["limit"] == 60_000
        assert report.metrics["Saved parameters"]["Parameters delta with Budget"] is None
    trained = summary["trained_beside_max"]
    values = summary["selected_parameters_max"] + sum(trained.values())
    assert summary["saved_bytes"] <= 60_000
    assert (
        summary["saved_bytes"] + 8 * values <= 1.3 * 60_000
    )  # maxima of several epochs, gradient and momentum
