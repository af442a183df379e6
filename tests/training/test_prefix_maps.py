"""Runs that keep the maps of their frozen first layers, against runs that do not."""

import dataclasses
import shutil
from collections import Counter
from unittest.mock import patch

import pytest
import torch
from torch import nn

from neq.data.loading import Images
from neq.training import Stopped, restore, train
from neq.utils.errors import UserError
from tests.toys import Toy, toy
from tests.training.runs import LISTS, run_of, stopped_and_resumed, without_times

LAST = {
    **{"neuron_selection": "last", "initialization": "last", "norm_mode": "frozen", "n_epochs": 4},
    **{"train_part": [0, 0.16], "base_batch_size": 16},
}
PHOTO = {**LAST, "augmentation": "photo", "views": 2}


def trained(folder, network=None, **settings):
    """Summary and metrics of a run, its notes, and how often each view of an image was read."""
    notes, reads = [], Counter()
    real = Images.__getitem__

    def read(self, key):
        reads[key] += 1
        return real(self, key)

    shutil.rmtree(folder, ignore_errors=True)
    with (
        patch.object(Images, "__getitem__", read),
        run_of(folder, network=network, **settings) as (run, diary),
    ):
        run = dataclasses.replace(run, notes=notes.append)
        summary = without_times(train(run))
        metrics = [without_times(report.metrics) for report in diary.reports]
        weights = {name: value.clone() for name, value in run.network.state_dict().items()}
    return (summary, metrics, weights), notes, reads


def same(one, other):
    return one[:2] == other[:2] and all(torch.equal(one[2][name], value) for name, value in other[2].items())


CASES = {
    "last": LAST,
    "SU": {**LAST, **LISTS, "neuron_selection": "SU", "initialization": "SU", "manual_weight_idx": [2, 3],
           "weight_update_ratio": [0.125, 0.25], "n_bias_update": 1},
    "head": {**LAST, "neuron_selection": "head", "initialization": "head", "ratio": 0.0},
    "auto": {**LAST, "neuron_selection": "auto", "initialization": "head", "n_epochs": 6, "budget": 20_000,
             "budget_unit": "bytes"},
    "random first": {**LAST, "initialization": "random"},
    "photo": PHOTO,
    "micro-batches": {**PHOTO, "micro_batch_size": 8},
    "bf16": {**PHOTO, "precision": "bf16"},
    "average": {**PHOTO, "ema_decay": 0.9},
    "smoothed": {**PHOTO, "label_smoothing": 0.1},
    "balanced": {**PHOTO, "sampling": "balanced"},
    "evaluated apart": {**PHOTO, "test_batch_size": 50},
    "rate search": {**LAST, "base_lr": "auto", "n_epochs": 2},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_scores_and_weights_are_bit_identical(tmp_path, case):
    settings = CASES[case]
    plain, told, read = trained(tmp_path / "run", prefix_cache="off", **settings)
    assert told == [line for line in told if "maps" not in line]
    views = settings.get("views", 1)
    for asked in ("auto", views):
        kept, notes, reads = trained(tmp_path / "run", prefix_cache=asked, **settings)
        assert same(kept, plain)
        assert any("kept for evaluations" in line for line in notes)
        assert any("kept for steps" in line for line in notes)
        assert reads.total() < 0.75 * read.total()


def test_each_view_is_read_once(tmp_path):
    _, _, reads = trained(tmp_path, prefix_cache=2, **{**PHOTO, "n_epochs": 6})
    velocities = {key for key, count in reads.items() if count > 1}
    assert velocities == set()
    views = Counter(view for view, _ in reads)
    assert set(views) == {None, 0, 1}
    assert views[0] > 170


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("stop", [(0, 3), (1, 7), (3, 2)])
def test_a_run_that_is_stopped_and_resumed_is_the_same(tmp_path, monkeypatch, cache, stop):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    found = []
    for name, at, asked in (("plain", None, "off"), ("kept", stop, 2)):
        settings = {**PHOTO, "n_epochs": 5, "prefix_cache": asked, "cache": cache}
        found.append(stopped_and_resumed(lambda: run_of(tmp_path / name, **settings), at))  # noqa: B023
    (summary, metrics, plain), (again, also, kept) = found
    assert (summary, metrics) == (again, also)
    weights = kept.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.network.state_dict().items())
    assert (tmp_path / "cache" / "maps").exists() == (cache == "disk")


@pytest.mark.slow
def test_runs_share_maps_on_disk_where_their_first_layers_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    settings = {**PHOTO, "cache": "disk", "prefix_cache": 2, "n_epochs": 2}
    reads = {}
    networks = {
        "first": {},
        "other rate": {"base_lr": 0.01},
        "other seed": {"manual_seed": 1},  # has other views, and its network another start
        "other layers": {"ratio": 0.05},
    }
    for name, change in networks.items():
        plain, *_ = trained(tmp_path / name, **{**settings, **change, "prefix_cache": "off"})
        kept, _, reads[name] = trained(tmp_path / name, **{**settings, **change})
        assert same(kept, plain)
    steps, evaluations = 2 * 176, 278 + 360
    assert reads["first"].total() == reads["other layers"].total() == steps + evaluations
    assert reads["other rate"].total() == 0
    assert reads["other seed"].total() == steps + evaluations


def test_runs_of_one_process_share_maps_in_memory(tmp_path):
    reads = []
    with run_of(tmp_path / "first", **{**PHOTO, "n_epochs": 2, "prefix_cache": 2}) as (run, _):
        summary = without_times(train(run))
        with (
            patch.object(Images, "__getitem__", lambda self, key: reads.append(key)),
            run_of(tmp_path / "second", **{**PHOTO, "n_epochs": 2, "prefix_cache": 2}) as (other, _),
        ):
            task = type(other.task)(run.data, run.device)
            assert without_times(train(dataclasses.replace(other, data=run.data, task=task))) == summary
    assert reads == []


def test_a_weight_that_changes_below_is_noticed(tmp_path):
    def between(run, diary):
        real = diary.epoch

        def epoch(report):
            real(report)
            if report.epoch == 1:
                with torch.no_grad():
                    run.network.stem.weight[0] += 0.05
                    run.network.norm1.running_mean[1] += 0.05

        diary.epoch = epoch

    found = []
    for asked in ("off", 1):
        with run_of(tmp_path / str(asked), **{**LAST, "prefix_cache": asked}) as (run, diary):
            between(run, diary)
            train(run)
            found.append([without_times(report.metrics) for report in diary.reports])
    assert found[0] == found[1]
    with run_of(tmp_path / "plain", **{**LAST, "prefix_cache": "off"}) as (run, diary):
        train(run)
        assert [without_times(report.metrics) for report in diary.reports][2:] != found[0][2:]


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_maps_beyond_the_limit(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    settings = {**PHOTO, "cache": cache, "cache_gib": 4e-4}
    plain, *_ = trained(tmp_path / "run", prefix_cache="off", **settings)
    kept, notes, _ = trained(tmp_path / "run", prefix_cache=2, **settings)
    assert same(kept, plain)
    assert any("of which cache_gib leaves 0.0" in line for line in notes)
    size = sum(path.stat().st_size for path in (tmp_path / "cache" / "maps").rglob("*") if path.is_file())
    assert size <= 4e-4 * 2**30
    assert (size > 0) == (cache == "disk")
    _, notes, _ = trained(tmp_path / "run", prefix_cache="auto", **settings)
    assert not any("maps" in line for line in notes)


def test_damaged_files_are_computed_again_with_one_line_each(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    settings = {**PHOTO, "cache": "disk", "prefix_cache": 2}
    plain, *_ = trained(tmp_path / "run", **settings)
    files = [path for path in (tmp_path / "cache" / "maps").rglob("*") if path.is_file()]
    for path in files[::100]:
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    again, *_ = trained(tmp_path / "run", **settings)
    assert same(again, plain)
    assert sum("damaged" in line for line in caplog.messages) == len(files[::100])


def test_a_stop_while_maps_are_made_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    settings = {**PHOTO, "cache": "disk", "prefix_cache": 2}
    plain, *_ = trained(tmp_path / "plain", **{**settings, "prefix_cache": "off"})
    with run_of(tmp_path / "run", **settings) as (run, _):
        store, kept = run.data.map_store, []

        def keep(*given, real=store.keep):
            kept.append(given)
            if len(kept) == 233:  # in the middle of a batch
                raise KeyboardInterrupt
            return real(*given)

        store.keep = keep
        with pytest.raises(KeyboardInterrupt):
            train(run)
    again, _, reads = trained(tmp_path / "run", **settings)
    assert same(again, plain)
    assert reads.total() < 2 * 176 + 278 + 360  # what was kept before is not read again


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_rounded_maps_train_alike_wherever_they_are_kept(tmp_path, monkeypatch, precision):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    exact, *_ = trained(tmp_path / "run", prefix_cache=2, **PHOTO)
    settings = {**PHOTO, "prefix_cache": 2, "prefix_precision": precision}
    found = [
        trained(tmp_path / "run", **settings, **more)[0]
        for more in ({}, {"cache": "disk"}, {"cache_gib": 2e-4}, {"cache_gib": 1e-9})
    ]
    assert all(same(found[0], other) for other in found[1:])
    assert not same(found[0], exact)
    assert found[0][0]["val_loss"] == pytest.approx(exact[0]["val_loss"], rel=0.02)


def test_auto_keeps_nothing_where_it_would_not_be_used_again(tmp_path):
    for change in (
        {"norm_mode": "frontier"},
        {"neuron_selection": "random", "initialization": "random"},
        {"neuron_selection": "random", "initialization": "random", "choose_every": 2},
        {"n_epochs": 1},
        {"memory": "tight"},
        {"checkpoint_segments": 2},
        {"micro_batch_size": 7},
    ):
        _, notes, _ = trained(tmp_path / "run", **{**LAST, "prefix_cache": "auto", "n_epochs": 2, **change})
        assert not any("maps" in line for line in notes), change
    fresh = {**PHOTO, "prefix_cache": "auto", "views": None, "n_epochs": 2}
    _, notes, _ = trained(tmp_path / "run", **fresh)
    assert [line.partition(" are kept for ")[2].split(":")[0] for line in notes if "maps" in line] == [
        "evaluations"
    ]


def test_a_moving_policy_goes_on_with_the_earliest_maps(tmp_path):
    settings = {
        **PHOTO,
        "neuron_selection": "random",
        "initialization": "random",
        "n_epochs": 5,
        "ratio": 0.01,
    }
    plain, *_ = trained(tmp_path / "run", prefix_cache="off", **settings)
    kept, _, _ = trained(tmp_path / "run", prefix_cache=2, **settings)
    assert same(kept, plain)


class Untraced(nn.Module):
    """A network whose forward a trace cannot hold."""

    def __init__(self):
        super().__init__()
        self.toy = toy(dtype=torch.float32, classes=10)
        self.head = self.toy.head

    def forward(self, x):
        if float(x.mean()) > 1e9:
            raise ValueError
        return self.toy(x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_mode": "frontier"}, "take norm_mode 'frozen'"),
        ({"mixup": 0.2}, "mixup and cutmix"),
        ({"checkpoint_segments": 2}, "checkpoint_segments"),
        ({"views": 3}, "views 3"),
        ({"prefix_precision": "int8", "initialization": "random"}, "random may choose other layers"),
        ({"prefix_precision": "int8", "prefix_cache": "auto"}, "--prefix_cache N"),
        ({"micro_batch_size": 7}, "do not divide a batch of 16"),
        ({"objective": "tent", "norm_mode": "frozen"}, "needs the images themselves"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_number_of_views_is_refused_where_maps_cannot_be_kept(tmp_path, change, words):
    settings = {**PHOTO, "prefix_cache": 2, **change}
    with pytest.raises(UserError, match=words), run_of(tmp_path, **settings) as (run, _):
        run.check_step()
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_trace_is_refused(tmp_path):
    settings = {**PHOTO, "prefix_cache": 2}
    with (
        run_of(tmp_path, network=Untraced(), **settings) as (run, _),
        pytest.raises(UserError, match="traced"),
    ):
        run.check_step()


def test_a_restored_run_has_no_maps_of_before(tmp_path):
    with run_of(tmp_path, **{**PHOTO, "prefix_cache": 2}) as (run, diary):
        diary.step = lambda epoch, step, steps: setattr(run.stop, "number", 15 * (epoch == 1))
        with pytest.raises(Stopped):
            train(run)
        progress = restore(run, run.checkpoints.load_last())
    assert progress.epoch == 1
    assert progress.epoch_state is not None


class OfTheBatch(Toy):
    """A network whose first layer's result depends on the images beside an image."""

    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


def of_the_batch():
    network = toy(dtype=torch.float32, classes=10)
    network.__class__ = OfTheBatch
    return network


def test_maps_that_depend_on_the_batch_are_not_kept(tmp_path):
    plain, *_ = trained(tmp_path / "run", network=of_the_batch(), prefix_cache="off", **PHOTO)
    kept, notes, _ = trained(tmp_path / "run", network=of_the_batch(), prefix_cache=2, **PHOTO)
    assert same(kept, plain)
    assert not any("are kept for" in line for line in notes)
