"""Stacks are their networks, the table grows where it stopped, and the page holds what was replayed."""

import json

import pytest
import torch

import benchmarks.partition_table
from benchmarks.partition import COMPARED, correlations_table, modelled_table, replayed, trials_table
from benchmarks.partition_stack import Stack, built, trained
from benchmarks.partition_table import FILE, TOGETHER, make_table, read_table, write_table
from benchmarks.partition_task import CLASSES, images, sizing
from neq.partition.strategies import strategies, strategy_of
from tests.benchmarks.pages import ROOT, table_of

NAMES = ("sync1_6_a", "sync3_046_aca", "sync7_0123456_cacacac", "sync2_36_ca")


def test_a_stack_computes_what_its_networks_do(monkeypatch):
    monkeypatch.setattr("benchmarks.partition_stack.DROPOUT", 0.0)
    sizer = sizing()
    networks = [built(sizer.size(strategy_of(name)).model, CLASSES, 0) for name in NAMES]
    stack, pixels = Stack(networks), images()[0][:20]
    for training in (True, False):  # the second by the statistics that the first left
        stack.train(training)
        for network in networks:
            network.train(training).dropout.p = 0.0
        expected = torch.stack([network(pixels) for network in networks])
        assert torch.allclose(stack(pixels), expected, atol=1e-4)


def test_training_is_the_same_every_time(monkeypatch):
    monkeypatch.setattr("benchmarks.partition_stack.EPOCHS", 1)
    models = [sizing().size(strategy_of(name)).model for name in NAMES[:2]]
    pixels, labels = (each[:150] for each in images())
    one, again = (trained(models, pixels, labels, 100, 3) for _ in range(2))
    assert one == again
    assert all(0 <= top1 <= 100 for top1, _ in one)


def test_a_table_is_continued_seed_by_seed(tmp_path, monkeypatch):
    done = []

    def train(models, pixels, labels, count, seed):
        done.append((len(models), seed))
        return [(50.0 + seed, 1.0)] * len(models)

    monkeypatch.setattr(benchmarks.partition_table, "trained", train)
    path, lines = tmp_path / "table.json", []
    make_table(path, [0], lines.append)
    assert sum(count for count, _ in done) == len(strategies())
    table = read_table(path)
    for name in list(table)[:TOGETHER]:
        del table[name]
    write_table(path, table)
    done.clear()
    make_table(path, [0, 1], lines.append)
    assert done[0] == (TOGETHER, 0)
    assert {seed for _, seed in done[1:]} == {1}
    assert set(map(tuple, read_table(path).values())) == {((50.0, 1.0), (51.0, 1.0))}


def test_replays_count_trials_to_the_best():
    table = modelled_table()
    assert replayed(table, COMPARED["random"], 1, 40) == pytest.approx(66, abs=30)
    assert replayed(table, COMPARED["tree by stage, factor 0.2"], 1, 10) < 60


@pytest.mark.skipif(not FILE.exists(), reason="the table is not made")
def test_the_page_holds_exactly_what_was_replayed():
    found = json.loads((ROOT / "benchmarks/partition_replay.json").read_text())
    assert table_of("docs/partition.md") == f"{trials_table(found)}\n\n{correlations_table(found)}"
    assert len(read_table()) == len(strategies())
    assert FILE.stat().st_size < 200_000
