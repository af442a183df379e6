"""The schema's own rules."""

from typing import Any

import pytest
from pydantic import ValidationError

from neq.config.schema import BackwardConfig, Config, DataProvider, MeanStd, NEqConfig, RunSettings


def test_defaults_are_valid_and_frozen() -> None:
    config = Config()
    assert Config.model_validate(config.model_dump()) == config
    with pytest.raises(ValidationError):
        config.device = "cpu"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "indices"),
    [("36-39-40", (36, 39, 40)), (5, (5,)), ([1, 2], (1, 2)), ("", ()), ("7", (7,))],
)
def test_dash_lists_of_indices(given: Any, indices: tuple[int, ...]) -> None:
    assert BackwardConfig.model_validate({"manual_weight_idx": given}).manual_weight_idx == indices


def test_dash_lists_of_shares() -> None:
    config = BackwardConfig.model_validate({"weight_update_ratio": "1-.5-0-.125"})
    assert config.weight_update_ratio == (1.0, 0.5, 0.0, 0.125)


@pytest.mark.parametrize("given", ["3--4", "-3", "3-x", -3, "3-", [1.5], [True, 2]])
def test_dash_lists_that_are_none(given: Any) -> None:
    with pytest.raises(ValidationError):
        BackwardConfig.model_validate({"manual_weight_idx": given})


def test_mean_std_as_list_or_mapping() -> None:
    mean, std = [0.1, 0.2, 0.3], [1, 2, 3]
    as_list = DataProvider.model_validate({"mean_std": [mean, std]}).mean_std
    as_mapping = DataProvider.model_validate({"mean_std": {"mean": mean, "std": std}}).mean_std
    assert as_list == as_mapping == MeanStd(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))


@pytest.mark.parametrize(
    "given",
    [
        [[0, 0, 0], [1, 1, 0]],
        [[0, 0, float("nan")], [1, 1, 1]],
        [[0, 0, 0], [1, 1, float("inf")]],
        [[0], [1]],
        [0, 1, 2],
        [[0, 0, True], [1, 1, 1]],
    ],
)
def test_mean_std_that_is_none(given: Any) -> None:
    with pytest.raises(ValidationError):
        DataProvider.model_validate({"mean_std": given})


@pytest.mark.parametrize("key", ["n_epochs", "base_lr", "lr_step_size", "momentum", "optimizer_name"])
def test_true_is_no_number_and_no_word(key: str) -> None:
    with pytest.raises(ValidationError, match="true and false are not values"):
        RunSettings.model_validate({key: True})


@pytest.mark.parametrize(
    ("given", "value"),
    [(0, False), (1, True), ("yes", True), ("no", False), ("on", True), ("off", False), (True, True)],
)
def test_truth_values(given: Any, value: Any) -> None:
    assert DataProvider.model_validate({"use_validation": given}).use_validation is value


def test_whole_floats_are_integers() -> None:
    assert RunSettings.model_validate({"n_epochs": 5.0}).n_epochs == 5
    with pytest.raises(ValidationError):
        RunSettings.model_validate({"n_epochs": 5.5})


@pytest.mark.parametrize("value", [0, -1, [30, 0]])
def test_steps_are_at_least_one_epoch(value: Any) -> None:
    with pytest.raises(ValidationError):
        RunSettings.model_validate({"lr_step_size": value})


def test_budgets_reach_down_to_zero_and_over_the_total() -> None:
    assert NEqConfig(ratio=0, budget=10**12).ratio == 0
    with pytest.raises(ValidationError):
        NEqConfig(budget=-1)
