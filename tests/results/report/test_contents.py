"""The figures of runs, side by side."""

import shutil

import pytest
import torch

from neq.results.best import copy_best
from neq.results.report.contents import best_of, facts, names, points, run_reports, table
from neq.runs.layout import EVALUATION
from neq.utils.errors import UserError

CPU = torch.device("cpu")


def row(runs, header):
    (fact,) = (each for each in facts(runs) if each.header == header)
    return fact


def test_figures_are_those_of_the_run(reports):
    first = reports[0]
    summary = first.run.summary
    assert row(reports, "accuracy (%)").value(first) == summary["test_top1"]
    assert row(reports, "accuracy as recorded in training (%)").value(first) == summary["test_top1"]
    assert row(reports, "step (ms)").value(first) == pytest.approx(1000 * summary["step_seconds"])
    assert row(reports, "peak memory (MiB)").value(first) == summary["peak_memory_bytes"] / 2**20
    # 1,120 training images, that is 35 steps of 32, in one epoch.
    minutes = summary["step_seconds"] * first.quality.evaluation.steps / 60
    assert row(reports, "all steps (min)").value(first) == pytest.approx(minutes)
    assert row(reports, "budget").shown(first) == "54,318 parameters"
    assert row(reports, "parameters").shown(first) == "558,770"
    assert row(reports, "torch fp32, batch 1").value(first) == pytest.approx(1000 / 6)
    assert row(reports, "torch fp32, batch 32").value(first) == pytest.approx(32_000 / 120)
    assert row(reports, "int8, batch 1").value(first) == pytest.approx(4000 / 6)


def test_the_interval_is_wilsons(reports):
    # 36 of 360: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n), z = 1.959964.
    quality = reports[0].quality
    hits, count = int((quality.evaluation.predicted == quality.evaluation.labels).sum()), 360
    share, z = hits / count, 1.959964
    middle, half = share + z * z / 2 / count, z * (share * (1 - share) / count + (z / 2 / count) ** 2) ** 0.5
    low, high = ((middle + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    shown = row(reports, "accuracy, 95 % interval (%)").value(reports[0])
    assert shown == f"{100 * low:.1f} to {100 * high:.1f}"


def test_the_best_of_several_is_marked_and_equal_ones_are_not(reports):
    assert best_of(row(reports, "torch fp32, batch 1"), reports) == {"first"}
    assert best_of(row(reports, "accuracy (%)"), reports) == set()
    assert best_of(row(reports, "network"), reports) == set()


def test_as_a_table_and_as_points(reports):
    found = table(reports).set_index("figure")
    assert found.loc["parameters", "first"] == 558_770
    assert found.loc["network", "second"] == "mcunet-in0"
    every = points(reports)
    assert len(every) == 6
    assert every.iloc[2].to_list() == ["first", "onnxruntime int8 u8s8", pytest.approx(86.4), 1.0, 1.5]


def test_a_copy_without_a_record_has_the_figures_of_its_network(two_runs, tmp_path):
    copy_best(two_runs[0], tmp_path / "copy")
    shutil.copy(two_runs[0] / EVALUATION, tmp_path / "copy")
    (found,) = run_reports([tmp_path / "copy"], CPU, False, pytest.fail)
    headers = {fact.header for fact in facts([found])}
    assert "accuracy (%)" in headers
    assert "step (ms)" not in headers
    assert not any("batch 32" in header for header in headers)


def test_names_are_as_short_as_tells_them_apart(tmp_path):
    assert names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert names([tmp_path / "x/0.1/0", tmp_path / "x/0.2/0"]) == ["0.1/0", "0.2/0"]
    with pytest.raises(UserError, match="a is given twice"):
        names([tmp_path / "a", tmp_path / "b/../a"])


def test_a_run_without_a_network_is_named(two_runs, tmp_path):
    folder = shutil.copytree(two_runs[0], tmp_path / "run")
    (folder / "checkpoint" / "best.safetensors").unlink()
    with pytest.raises(UserError, match=f"{folder} has no checkpoint"):
        run_reports([folder], CPU, False, pytest.fail)
