"""Searches record each result before they are told it, and go on where they stopped."""

import json

import pytest

from neq.partition import read_model
from neq.partition.latency import latency
from neq.partition.search import TRIALS, PartitionSearch, best_trial, read_trials, spearman
from neq.partition.searches import SEARCHES
from neq.partition.sizing import Sizing
from neq.partition.strategies import strategy_name
from neq.partition.trial_runs import Measured
from neq.utils.errors import UserError
from tests.partition.test_tree import reward
from tests.partition.toys import ROWS, Machine, Wire, base

DEVICES = Machine(1e5, 0.001), Machine(7e4, 0.001)
FREE = Wire()
BASE = base(((8, 3, 1, [16]), *ROWS[1:]))


class Trainer:
    """Rewards by the strategy, in place of training."""

    def __init__(self, stop_at=None, diverges=()):
        self.trained, self.rounds, self.stop_at, self.diverges = [], [], stop_at, diverges

    def __call__(self, name, models):
        self.rounds.append(name)
        found = {}
        for path in models:
            if len(self.trained) == self.stop_at:
                raise KeyboardInterrupt
            name, _, digest = path.stem.partition("-")
            assert len(digest) == 8
            self.trained.append(name)
            if name not in self.diverges:
                top1 = 100 * reward(read_model(path).sync)
                found[path] = Measured(top1, top1 - 1, (f"runs/{name}",))
        return found


def search(folder, trainer, count=12, kind="tree", in_flight=1, link=FREE, scale=1.0, **options):
    sizing = Sizing(BASE, DEVICES, link, scale, classes=10)
    made = SEARCHES[kind](0)
    return PartitionSearch(sizing, made, trainer, folder, count, in_flight, 10, **options), made


def test_trials_are_sized_trained_and_recorded(tmp_path):
    lines, trainer = [], Trainer()
    made, tree = search(tmp_path, trainer, note=lines.append)
    trials = made.run()
    assert [trial.name for trial in trials] == trainer.trained
    assert len(set(trainer.trained)) == 12
    assert read_trials(tmp_path) == trials
    assert tree.nodes[()].trials == 12
    best = best_trial(trials)
    assert best.val_top1 == max(trial.val_top1 for trial in trials)
    (path,) = (tmp_path / "models").glob(f"{best.name}-*.json")
    model = read_model(path)
    assert strategy_name(model.sync) == best.name
    assert best.latency_ms == latency(model, DEVICES, Wire(), 10).total <= made.sizing.limit
    assert lines[-1].startswith(f"trial 12 of 12: {trials[-1].name} ")
    assert lines[-1].endswith(f"(best {best.val_top1:.2f} %, {best.name})")


@pytest.mark.parametrize("kind", ["tree", "published", "tpe", "random"])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_search_that_stopped_goes_on_as_it_would_have(tmp_path, kind, in_flight):
    whole = search(tmp_path / "whole", Trainer(), kind=kind, in_flight=in_flight)
    (tmp_path / "whole").mkdir()
    expected = whole[0].run()
    folder = tmp_path / "stopped"
    folder.mkdir()
    first = Trainer(stop_at=7)
    with pytest.raises(KeyboardInterrupt):
        search(folder, first, kind=kind, in_flight=in_flight)[0].run()
    done = len(read_trials(folder))
    assert done == 7 - 7 % in_flight
    again = Trainer()
    trials, made = (lambda pair: (pair[0].run(), pair[1]))(
        search(folder, again, kind=kind, in_flight=in_flight)
    )
    assert trials == expected
    assert again.trained == [trial.name for trial in expected[done:]]
    if kind in ("tree", "published"):
        assert made.nodes == whole[1].nodes


def test_more_trials_continue_a_search(tmp_path):
    search(tmp_path, Trainer(), 4)[0].run()
    more = Trainer()
    assert len(search(tmp_path, more, 6)[0].run()) == 6
    assert len(more.trained) == 2
    assert more.rounds == ["trials-0005", "trials-0006"]


def test_networks_of_other_widths_have_other_files(tmp_path):
    search(tmp_path, Trainer(), 1)[0].run()
    (tmp_path / TRIALS).unlink()
    search(tmp_path, Trainer(), 1, scale=0.8)[0].run()
    first, second = (tmp_path / "models").iterdir()
    assert first.name.partition("-")[0] == second.name.partition("-")[0]
    assert read_model(first) != read_model(second)


def test_what_cannot_be_sized_or_diverges_is_a_trial_without_accuracy(tmp_path):
    trainer = Trainer()
    trials = search(tmp_path, trainer, 20, kind="random", link=Wire(0.1))[0].run()
    invalid = [trial for trial in trials if trial.latency_ms is None]
    assert 0 < len(invalid) < 20
    assert {trial.name for trial in invalid}.isdisjoint(trainer.trained)
    assert all(trial.val_top1 is None and trial.macs is None for trial in invalid)
    (tmp_path / "other").mkdir()
    name = trainer.trained[0]
    lines = []
    diverging = Trainer(diverges={name})
    found = search(tmp_path / "other", diverging, 20, kind="random", link=Wire(0.1), note=lines.append)[
        0
    ].run()
    (trial,) = [trial for trial in found if trial.name == name]
    assert trial.val_top1 is None
    assert trial.macs > 0
    assert any(line.endswith(f"{name} diverged") for line in lines)
    assert any(line.endswith("leaves no time for blocks") for line in lines)


def test_the_record_loses_no_more_than_its_last_line(tmp_path):
    trials = search(tmp_path, Trainer(), 3)[0].run()
    path = tmp_path / TRIALS
    path.write_text(path.read_text() + '{"name": "sync1_6')
    assert read_trials(tmp_path) == trials
    assert len(search(tmp_path, Trainer(), 4)[0].run()) == 4
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"name": "sync9"}',
        '{"name": "sync1_6_a", "runs": [], "val_top1": 1e999}',
        '{"runs": [], "x": 1}',
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, line):
    (tmp_path / TRIALS).write_text(line + "\n")
    with pytest.raises(UserError, match=r"trials\.jsonl, line 1 is damaged") as caught:
        read_trials(tmp_path)
    assert "\n" not in str(caught.value)


def test_rank_correlation():
    assert spearman([(1, 2.0), (2, 3.0), (5, 9.0)]) == 1
    assert spearman([(1, 2.0), (2, 3.0)]) is None
    assert spearman([(1, 2.0), (1, 3.0), (1, 4.0)]) is None


def test_the_record_is_plain_json(tmp_path):
    search(tmp_path, Trainer(), 1)[0].run()
    (line,) = (tmp_path / TRIALS).read_text().splitlines()
    assert json.loads(line)["name"].startswith("sync")
