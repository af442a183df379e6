import subprocess
import sys

import pytest

from neq.config import OBJECTIVES, Objective, objectives, register_objective, resolve, to_mapping
from neq.runs import identity, run_folder
from neq.utils.errors import UserError


@pytest.fixture
def quiet(monkeypatch):
    """An objective that a user registers."""
    registry = dict(objectives._REGISTRY)
    registered = Objective("quiet", "tests.nowhere:Task", {"n_epochs": 7, "neuron_selection": "none"})
    register_objective(registered)
    yield registered
    objectives._REGISTRY.clear()
    objectives._REGISTRY.update(registry)


def test_a_registered_objective_is_a_setting_at_once(quiet):
    config = resolve({}, {"objective": "quiet", "norm_mode": "train"}).config
    assert (config.objective, config.run_config.n_epochs) == ("quiet", 7)
    with pytest.raises(UserError, match="objective 'quite' is unknown; did you mean 'quiet'"):
        resolve({}, {"objective": "quite"})
    register_objective(quiet)
    with pytest.raises(ValueError, match="an objective 'quiet' already"):
        register_objective(Objective("quiet", "elsewhere:Task"))


def test_an_unknown_objective_is_refused_with_those_that_are_known():
    with pytest.raises(UserError) as caught:
        resolve({}, {"objective": "labels"})
    assert str(caught.value) == f"objective 'labels' is unknown. Allowed: {', '.join(sorted(OBJECTIVES))}."


def test_listing_objectives_does_not_load_torch():
    code = "import sys, neq.config; print(list(neq.config.OBJECTIVES), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("False\n")


def test_what_it_brings_goes_before_the_file_and_not_before_what_is_given_beside_it():
    file = {"run_config": {"n_epochs": 9, "base_lr": 0.5}, "NEq_config": {"norm_mode": "frozen"}}
    as_flag = resolve(file, {"objective": "tent", "base_lr": 0.25}).config
    assert (as_flag.run_config.n_epochs, as_flag.run_config.base_lr) == (1, 0.25)
    assert (as_flag.run_config.optimizer_name, as_flag.data_provider.augmentation) == ("adam", "none")
    neq = as_flag.NEq_config
    assert (neq.neuron_selection, neq.initialization, neq.train_head) == ("none", "none", False)
    assert neq.norm_mode == "train"
    in_file = resolve({**file, "objective": "statistics", "NEq_config": {"ratio": 0.1}}, {}).config
    assert (in_file.run_config.n_epochs, in_file.run_config.base_lr) == (9, 0.5)
    assert (in_file.run_config.optimizer_name, in_file.NEq_config.norm_mode) == ("adam", "frontier")
    assert resolve(to_mapping(as_flag), {}).config == as_flag
    assert resolve(to_mapping(in_file), {}).config == in_file


def test_another_policy_than_the_objectives_brings_its_own_settings():
    config = resolve({}, {"objective": "tent", "neuron_selection": "auto", "ratio": 0.1}).config
    assert (config.NEq_config.norm_mode, config.NEq_config.initialization) == ("train", "head")
    assert config.NEq_config.train_head


def test_the_default_is_no_part_of_the_identity():
    plain, named = (resolve({}, given).config for given in ({}, {"objective": "classification"}))
    assert plain == named
    assert not {"objective", "train_head"} & identity(plain).keys()
    tent, statistics = (resolve({}, {"objective": name}).config for name in ("tent", "statistics"))
    assert identity(tent)["objective"] == "tent"
    assert len({run_folder(plain), run_folder(tent), run_folder(statistics)}) == 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"objective": "tent", "norm_mode": "frozen"}, "nothing trains with neuron_selection 'none'"),
        (
            {"neuron_selection": "none", "norm_mode": "frontier"},
            "nothing trains with neuron_selection 'none'",
        ),
        (
            {
                "neuron_selection": "head",
                "initialization": "head",
                "train_head": False,
                "norm_mode": "frozen",
            },
            "nothing trains with neuron_selection 'head'",
        ),
        ({"objective": "statistics", "norm_mode": "train"}, "'statistics' trains nothing, which"),
        ({"objective": "source", "train_head": True}, "'source' trains nothing, which"),
        ({"objective": "statistics", "neuron_selection": "random"}, "'statistics' trains nothing, which"),
    ],
)
def test_what_trains_must_fit_the_objective(settings, reason):
    with pytest.raises(UserError, match=reason):
        resolve({}, settings)


@pytest.mark.parametrize(
    "settings",
    [{"neuron_selection": "none", "norm_mode": "train"}, {"neuron_selection": "random", "train_head": False}],
)
def test_norms_or_neurons_may_train_without_the_head(settings):
    assert not resolve({}, settings).config.NEq_config.train_head
