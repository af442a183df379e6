import json
from pathlib import Path

import pytest

from neq.planning.device_plan import DevicePlan, Hit, PlannedRow
from neq.planning.rules import Limits
from neq.utils.errors import UserError


def plan() -> DevicePlan:
    rows = (
        PlannedRow({"micro_batch_size": 8}, 1.0, 1000, 5.0),
        PlannedRow({"micro_batch_size": 16}, 1.0, None, None, "R4: too large"),
        PlannedRow({"micro_batch_size": 4}, 1.0, 950, 6.0),
        PlannedRow({"micro_batch_size": 2}, 0.5, 500, 7.0),
    )
    return DevicePlan({"net_name": "mbv2"}, Limits(1100), "a CPU", rows, (0, 2, 3))


def test_the_preferred_row_runs_until_it_exceeds_the_limit() -> None:
    first = plan()
    assert first.number == 0
    second = first.exceeded(1200)
    assert second.hits == (Hit(0, 1200, 1000),)
    assert second.number == 3  # row 2 is predicted to need nearly as much as what exceeded the limit
    with pytest.raises(UserError, match="every plan has exceeded the memory limit"):
        _ = second.exceeded(1150).number


@pytest.mark.parametrize("deadline", [60.0, float("inf")])
def test_written_and_read(tmp_path: Path, deadline: float) -> None:
    path = tmp_path / "plan.json"
    given = DevicePlan(**{**vars(plan().exceeded(1200)), "limits": Limits(1100, deadline)})
    given.write(path)
    assert DevicePlan.read(path) == given
    assert "Infinity" not in path.read_text()


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"rows": [{}]}, {"order": []}, {"order": [1]}, {"order": [9]}, {"limits": {"memory": 0}}],
)
def test_a_file_that_is_no_plan(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "plan.json"
    plan().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"plan.json is no plan of this version; make it again with neq plan"):
        DevicePlan.read(path)
