from dataclasses import replace
from pathlib import Path

import pytest

from neq.results import collect, groups, runs
from neq.results.frame import frame
from neq.results.grouping import differing, series_names, varying_settings
from neq.results.runs_of_sweep import run_key
from neq.results.series import panels
from neq.results.verdicts import Check
from neq.runs import RecordHeader, Stretch
from neq.runs.environment import Environment
from tests.results.run_folders import configs, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def collected(tmp_path):
    """The runs of a sweep file with these parameters, all done but those whose number is left out."""

    def of(more, without=(), name="sweep", **summary):
        file = sweep_file(tmp_path / f"{name}.yaml", more)
        for at, config in enumerate(configs(file)):
            if at not in without:
                write_run(tmp_path / "runs", config, **summary)
        return collect([file], tmp_path / "runs")

    return of


def rows(table):
    return table.to_dict("records")


def test_figures_are_means_over_seeds_with_the_deviation_of_a_sample(collected):
    found = collected("manual_seed: {values: [0, 1, 2]}")
    for run, top1, seconds in zip(found, (80.0, 83.0, 89.0), (0.01, 0.02, 0.06), strict=True):
        run.summary.update(test_top1=top1, val_top1=top1 + 1, step_seconds=seconds, best_epoch=run.seed)
    (row,) = rows(groups(frame(found)))
    assert row["test_top1"] == pytest.approx(84.0)
    assert row["test_top1_std"] == pytest.approx(21**0.5)  # (16 + 1 + 25) / 2
    assert row["val_top1"] == pytest.approx(85.0)
    assert row["best_epoch"] == 1
    assert row["epochs"] == 3
    assert row["step_seconds"] == pytest.approx(0.03)
    assert (row["seeds_done"], row["seeds_expected"]) == (3, 3)
    assert row["budget_amount"] == 162953


def test_one_seed_has_no_deviation_and_a_missing_one_is_counted(collected):
    table = groups(frame(collected("manual_seed: {values: [0, 1]}", without=[1])))
    assert table["test_top1"].notna().all()
    assert table["test_top1_std"].isna().all()
    (row,) = rows(table)
    assert (row["seeds_done"], row["seeds_expected"]) == (1, 2)


def test_without_a_run_only_the_settings_are_known(collected):
    table = groups(frame(collected("manual_seed: {value: 0}", without=[0])))
    (row,) = rows(table)
    assert row["budget_amount"] == 162953  # what a ratio comes to, by the catalog
    assert row["net_name"] == "mcunet-in0"
    assert (row["seeds_done"], row["seeds_expected"]) == (0, 1)
    assert table[["test_top1", "epochs", "step_seconds"]].isna().all(axis=None)


def test_a_value_that_is_not_a_number_is_not_counted(collected):
    found = collected("manual_seed: {values: [0, 1, 2]}")
    found[0].summary["val_top1"] = None  # as NaN is recorded
    found[1].summary["step_seconds"] = float("nan")
    (row,) = rows(groups(frame(found)))
    assert (row["val_top1_count"], row["step_seconds_count"], row["test_top1_count"]) == (2, 2, 3)


def test_groups_hold_seeds_and_never_mix_settings(tmp_path):
    file = sweep_file(tmp_path / "sweep.yaml")
    for config in configs(file)[:5]:
        write_run(tmp_path / "runs", config)
    table = runs([file], tmp_path / "runs")
    assert [int(count) for count in table.groupby("setting", sort=False).size()] == [3, 3, 3, 3]
    found = rows(groups(table))
    counts = {
        (one["ratio"], one["neuron_selection"]): (one["seeds_done"], one["seeds_expected"]) for one in found
    }
    assert counts == {
        (0.1, "velocity"): (2, 3), (0.1, "random"): (1, 3),
        (0.3, "velocity"): (1, 3), (0.3, "random"): (1, 3),
    }  # fmt: skip
    assert "manual_seed" not in table.columns


def test_settings_never_mix_and_are_named_where_they_differ(collected):
    table = groups(frame(collected("base_lr: {values: [.01, .1]}\n  manual_seed: {values: [0, 1]}")))
    assert len(table) == 2
    assert varying_settings(table) == ["base_lr"]
    assert list(table["base_lr"]) == [0.01, 0.1]


def test_a_searched_rate_stands_beside_given_ones(collected):
    table = groups(frame(collected("base_lr: {values: [.01, auto]}")))
    assert varying_settings(table) == ["base_lr"]
    assert sorted(table["base_lr"]) == ["0.01", "auto"]


def test_what_follows_from_the_scheme_is_not_repeated(tmp_path):
    table = groups(runs([ROOT / "policies/digits/su.yaml"], tmp_path))
    assert table["weight_update_ratio"].nunique() == 3
    assert varying_settings(table) == []
    same = [key.replace('"scheme": "', '"scheme": null, "x": "') for key in table.index]
    assert len(set(same)) == 3
    unnamed = table.set_index(table.index.map(dict(zip(table.index, same, strict=True)))).assign(
        budget_amount=None
    )
    lists = {"n_bias_update", "manual_weight_idx", "weight_update_ratio"}
    assert lists <= set(varying_settings(unnamed))


def test_differing_names_come_in_their_order():
    one = {"b": 1, "a": [1, 2], "same": 0.5, "none": None}
    other = {"a": [1, 2.0], "b": True, "same": 0.5, "more": 3}
    assert differing([one, other]) == ["b", "a", "more"]
    assert differing([one, dict(one)]) == differing([one]) == differing([]) == []


def test_costs_are_compared_with_full_training_of_the_same_other_settings(collected):
    found = collected("neuron_selection: {values: [velocity, full]}\n  base_lr: {values: [.01, .1]}")
    for run in found:
        full = run.config["neuron_selection"] == "full"
        run.summary["step_seconds"] = (0.1 if full else 0.025) * (1 + (run.config["base_lr"] == 0.1))
    found = [
        run for run in found if run.config["base_lr"] == 0.01 or run.config["neuron_selection"] != "full"
    ]
    ratios = {
        (row["neuron_selection"], row["base_lr"]): row["step_seconds_ratio"]
        for row in rows(groups(frame(found)))
    }
    assert ratios == pytest.approx(
        {("velocity", 0.01): 0.25, ("full", 0.01): 1.0, ("velocity", 0.1): float("nan")}, nan_ok=True
    )


def test_the_baseline_updates_everything_from_the_first_epoch(collected):
    found = collected("neuron_selection: {value: full}\n  initialization: {values: [full, random]}")
    for run in found:
        run.summary["step_seconds"] = 0.1 if run.config["initialization"] == "full" else 0.05
    ratios = {row["initialization"]: row["step_seconds_ratio"] for row in rows(groups(frame(found)))}
    assert ratios == {"full": 1.0, "random": 0.5}


def test_full_under_a_budget_is_no_baseline(collected):
    found = collected("neuron_selection: {values: [velocity, full]}")
    for run in found:
        run.summary["selected_parameters_max"] = 1000
    assert groups(frame(found))["saved_bytes_ratio"].isna().all()


def test_the_best_method_is_that_of_the_best_test_figure_under_one_budget(collected):
    table = frame(collected("ratio: {values: [.1, .3]}\n  neuron_selection: {values: [velocity, random]}"))
    found = groups(table)
    assert list(found["neuron_selection"][found["is_best"]]) == ["velocity", "velocity"]
    # A method alone is not the best of anything.
    assert not groups(table[table["neuron_selection"] == "velocity"])["is_best"].any()


def test_evaluations_are_summed_up(collected):
    found = collected("manual_seed: {values: [0, 1, 2]}")
    figures = [run.summary["test_top1"] for run in found]
    checks = {run_key(run): Check(figure, figure) for run, figure in zip(found, figures, strict=True)}
    assert list(groups(frame(found, checks))["evaluation"]) == ["as recorded"]
    checks[run_key(found[1])] = Check(figures[1] - 2, figures[1])
    checks[run_key(found[2])] = Check(None, figures[2], "it is gone")
    assert list(groups(frame(found, checks))["evaluation"]) == ["1 of 3 differs, 1 not measured"]
    del checks[run_key(found[0])]
    assert groups(frame(found, checks))["evaluation"].isna().all()


def test_devices_that_differ_over_seeds_are_both_named(collected):
    found = collected("manual_seed: {values: [0, 1, 2]}")
    found[1].summary["device"] = "cuda"
    assert list(groups(frame(found))["device"]) == ["cpu, cuda"]


def test_seeds_of_different_environments_are_marked(collected):
    found = collected("ratio: {values: [.1, .3]}\n  manual_seed: {values: [0, 1]}")
    one, two = (Environment(threads=count, torch="2.9.0", device_name="a CPU") for count in (1, 2))
    of_each = [(one,), (one,), (one,), (one, two)]
    found = [
        replace(run, header=RecordHeader(stretches=tuple(map(Stretch, of))))
        for run, of in zip(found, of_each, strict=True)
    ]
    table = groups(frame(found))
    assert table["environment"].fillna("same").tolist() == ["same", "threads: 1, 1 -> 2"]
    assert frame(found)["threads"].tolist() == ["1", "1", "1", "1 -> 2"]
    found[0].summary["device"] = "cuda"
    assert groups(frame(found))["environment"].iloc[0] == "device: cuda, cpu"


UNKNOWN = "magnitude"  # a policy that nothing in results knows


def renamed(table):
    """Runs of velocity as those of a policy that results do not know."""
    changed = {name: table[name].str.replace('"velocity"', f'"{UNKNOWN}"') for name in ("setting", "key")}
    policy = table["neuron_selection"].replace("velocity", UNKNOWN)
    return table.assign(neuron_selection=policy, **changed)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ("initialization: {values: [random, full]}", ["magnitude, init full", "magnitude, init random"]),
        ("norm_mode: {values: [frontier, frozen]}", ["magnitude, norms frontier", "magnitude, norms frozen"]),
        ("base_lr: {values: [.01, .1]}", ["magnitude, base_lr 0.01", "magnitude, base_lr 0.1"]),
        ("velocity_mu: {values: [0, .5]}", ["magnitude, velocity_mu 0.0", "magnitude, velocity_mu 0.5"]),
    ],
)
def test_two_settings_of_an_unknown_policy_are_two_series(collected, more, names):
    table = groups(
        renamed(frame(collected(f"{more}\n  ratio: {{values: [.1, .3]}}\n  manual_seed: {{values: [0, 1]}}")))
    )
    (panel,) = panels(table)
    assert sorted(name for name, _ in panel.series) == names
    assert set(panel.points["neuron_selection"]) == {UNKNOWN}
    assert [len(points) for _, points in panel.series] == [2, 2]
    assert panel.points["is_joined"].all()


def test_an_initialization_is_named_only_where_its_policy_comes_with_several(collected):
    mixed = collected("initialization: {values: [random, full]}") + collected(
        "neuron_selection: {value: random}", name="random"
    )
    names = series_names(groups(frame(mixed)))
    assert names == ["velocity, init full", "velocity, init random", "random"]


def test_long_values_that_begin_alike_stay_apart(collected):
    table = groups(frame(collected("base_lr: {values: [.1, .2]}")))
    long = [key.replace('"digits"', f'"digits", "optimizer_name": "an optimizer of a long name {at}"')
            for at, key in enumerate(table.index)]  # fmt: skip
    table.index = long
    assert len(set(series_names(table))) == 2
