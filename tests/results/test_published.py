"""The published table, and runs beside it."""

import math
from pathlib import Path

import pytest

from neq.cli import main
from neq.config import network
from neq.results import groups, runs
from neq.results.published import HEADERS, comparison, published_results
from neq.sweeps import cells, read_sweep
from tests.results.run_folders import write_run

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SETS = {"c10", "c100", "vww", "flowers", "food", "pets", "cub"}


def written(tmp_path, files, changed=lambda config: {}, edit=lambda config: config):
    """Runs of every cell of some of the shipped sweeps."""
    for file in files:
        for cell in cells(read_sweep(POLICIES / file)):
            write_run(tmp_path / "runs", edit(cell.config), **changed(cell.config))
    return groups(runs([POLICIES / file for file in files], tmp_path / "runs"))


def test_the_table_is_whole():
    table = published_results()
    assert {name: len(net.rows) for name, net in table.items()} == {
        "pre_trained_mbv2": 10,
        "pre_trained_resnet18": 3,
        "pre_trained_resnet50": 3,
    }
    for name, net in table.items():
        assert all(set(row.top1) == SETS for row in net.rows)
        full = [row.budget for row in net.rows if row.neuron_selection == "full"]
        assert full == [network(name).total_weights]


@pytest.mark.parametrize(
    ("net", "budget", "policy", "data", "top1"),
    [
        ("pre_trained_mbv2", 192311, "SU", "c10", 94.88),
        ("pre_trained_mbv2", 464639, "velocity", "flowers", 93.32),
        ("pre_trained_mbv2", 675540, "random", "cub", 66.36),
        ("pre_trained_mbv2", 2189760, "full", "pets", 82.82),
        ("pre_trained_resnet18", 980715, "random", "pets", 79.49),
        ("pre_trained_resnet50", 2059888, "velocity", "food", 81.10),
    ],
)
def test_figures_are_those_of_the_paper(net, budget, policy, data, top1):
    rows = published_results()[net].rows
    (row,) = (row for row in rows if (row.budget, row.neuron_selection) == (budget, policy))
    assert row.top1[data] == top1


@pytest.mark.slow
def test_every_cell_of_the_table_has_a_policy_file_that_asks_for_it_as_published():
    compared = comparison(groups(runs(sorted(POLICIES.glob("*/*.yaml")), "nowhere")))
    asked = set(compared[["Model", "Budget", "Method", "Dataset"]].itertuples(index=False, name=None))
    table = {
        (name, row.budget, row.neuron_selection, data)
        for name, net in published_results().items()
        for row in net.rows
        for data in row.top1
    }
    assert asked == table
    assert set(compared[HEADERS[-1]]) == {""}
    assert compared[["Ours (%)", HEADERS[6], "Difference (points)"]].isna().all(axis=None)


def test_ours_is_the_mean_over_seeds_beside_theirs(tmp_path):
    top1 = {0: 95.0, 42: 96.0, 100: 97.0}
    found = written(tmp_path, ["c10/mbv2.yaml"], lambda config: {"test_top1": top1[config.manual_seed]})
    table = comparison(found)
    assert tuple(table.columns) == HEADERS
    assert len(table) == 6
    (row,) = (
        row for row in table.to_dict("records") if (row["Budget"], row["Method"]) == (192311, "velocity")
    )
    assert (row["Model"], row["Dataset"], row["Initialization"]) == ("pre_trained_mbv2", "c10", "random")
    assert (row["Ours (%)"], row["Standard deviation (points)"]) == (96.0, 1.0)
    assert (row["Seeds done"], row["Seeds expected"]) == (3, 3)
    assert row["Published (%)"] == 95.35
    assert row["Difference (points)"] == pytest.approx(0.65)
    assert row["Set otherwise than published"] == ""


def test_what_was_set_otherwise_is_named(tmp_path):
    path = tmp_path / "quick.yaml"
    text = (POLICIES / "flowers/mbv2.yaml").read_text()
    more = "  n_epochs: {value: 2}\n  image_size: {value: 96}\n  norm_mode: {value: frontier}\n"
    more += "  velocity_rule: {value: published}\n  base_lr"
    path.write_text(text.replace("  base_lr", more, 1))
    compared = comparison(groups(runs([path], tmp_path / "runs"))).drop_duplicates("Method")
    differs = {row.Method: set(row[-1].split(", ")) for row in compared.itertuples(index=False)}
    always = {"n_epochs 2 (120)", "image_size 96 (224)", "norm_mode frontier (train)"}
    assert differs["velocity"] == always | {"velocity_rule published (reference)"}
    assert differs["random"] == always  # where neurons are drawn, no velocity counts


def test_one_seed_has_no_deviation_and_a_missing_figure_is_none(tmp_path):
    def one_seed(config):
        return {"test_top1": 94.0 if config.manual_seed == 42 else None}

    (one,) = comparison(written(tmp_path, ["c10/mbv2_baseline.yaml"], one_seed)).to_dict("records")
    assert one["Ours (%)"] == 94.0
    assert math.isnan(one["Standard deviation (points)"])
    assert one["Difference (points)"] == pytest.approx(94.0 - 95.93)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[mbv2_scheme_1, mbv2_scheme_3, mbv2_scheme_5]", "[mbv2_scheme_2, mbv2_scheme_4]"),
        ("pre_trained_mbv2", "mbv2"),
        ("dataset: {value: c10}", "dataset: {value: svhn}"),
        ("neuron_selection: {values: [velocity, random]}", "neuron_selection: {value: full}"),
    ],
)
def test_what_the_table_does_not_have_is_not_compared(tmp_path, old, new):
    text = (POLICIES / "c10/mbv2.yaml").read_text()
    assert old in text
    (tmp_path / "other.yaml").write_text(text.replace(old, new))
    assert comparison(groups(runs([tmp_path / "other.yaml"], tmp_path))).empty


def test_the_command_prints_the_comparison(tmp_path, capsys):
    written(tmp_path, ["c10/mbv2_su.yaml"], lambda config: {"test_top1": 95.5})
    assert (
        main(["results", "compare", str(POLICIES / "c10/mbv2_su.yaml"), "--runs-dir", str(tmp_path / "runs")])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "network",
        "data",
        "set",
        "budget",
        "policy",
        "ours",
        "seeds",
        "published",
        "difference",
    ]
    assert lines[2].split() == [
        *("pre_trained_mbv2", "c10", "192,311", "SU", "95.50", "±", "0.00", "3/3", "94.88", "+0.62")
    ]
    assert "arXiv 2312.05282" in lines[-1]


def test_the_command_says_when_there_is_nothing_to_compare(tmp_path, capsys):
    assert (
        main(["results", "compare", str(POLICIES / "digits/velocity.yaml"), "--runs-dir", str(tmp_path)]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("nothing to compare: the published table has pre_trained_mbv2, ")
    assert "192,311, 464,639, 675,540" in out
