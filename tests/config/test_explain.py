"""pydantic's errors in one's own words."""

from typing import Any

import pytest
from pydantic import ValidationError

from neq.config.explain import expected
from neq.config.schema import Config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"run_config": {"n_epochs": "abc"}}, "an integer is expected"),
        ({"run_config": {"n_epochs": 1.5}}, "an integer is expected"),
        ({"run_config": {"n_epochs": [1]}}, "an integer is expected"),
        ({"run_config": {"n_epochs": 0}}, "it must be greater than or equal to 1"),
        ({"run_config": {"base_lr": "x"}}, "a number is expected"),
        ({"run_config": {"base_lr": float("inf")}}, "a finite number is expected"),
        ({"data_provider": {"prefix_cache": "two"}}, "an integer is expected"),
        ({"data_provider": {"prefix_cache": 0}}, "it must be greater than or equal to 1"),
        ({"run_config": {"no_wd_keys": 7}}, "a list is expected, as [1, 2]"),
        ({"resume": "maybe"}, "yes or no (1 or 0) is expected"),
        ({"project_name": 5}, "text is expected (quote it where YAML reads something else)"),
        ({"data_provider": {"mean_std": {"mean": [0, 0, 0]}}}, "std is missing"),
        ({"data_provider": {"mean_std": [[0, 0], [1, 1, 1]]}}, "a value is missing"),
        ({"data_provider": {"mean_std": 3}}, "keys with values are expected"),
        ({"nonsense": 3}, "key 'nonsense' is unknown"),
        ({"run_config": {"n_epochs": True}}, "true and false are not values of this key"),
    ],
)
def test_wordings(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(values)
    assert expected(caught.value.errors()[0]) == text
