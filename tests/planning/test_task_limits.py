import pytest

from neq.planning.rules import Limits
from neq.planning.task_limits import TaskLimits, read_task_limits
from neq.utils.errors import UserError


def test_limits_as_a_file_has_them() -> None:
    assert read_task_limits(None) is None
    assert read_task_limits({"memory": "256MiB"}) == TaskLimits(Limits(2**28))
    whole = read_task_limits({"memory": "1.5GiB", "deadline": "10min", "probe": True})
    assert whole == TaskLimits(Limits(3 * 2**29, 600), True)
    assert whole.identity == {"plan_memory": 3 * 2**29, "plan_deadline": 600, "plan_probe": True}
    assert TaskLimits(Limits(1)).identity["plan_deadline"] is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("256MiB", r"plan '256MiB' is not allowed: \{memory: 256MiB, deadline: 10min\} is expected"),
        ({}, r"plan \{\} is not allowed"),
        ({"memory": 256}, "plan: 256 is not allowed: a size is expected, as 256MiB"),
        ({"memory": "0MiB"}, "plan: '0MiB' is not allowed"),
        ({"memory": "1GiB", "deadline": 0}, "plan: 0 is not allowed: a time is expected, as 90s"),
        ({"memory": "1GiB", "deadline": "10"}, "plan: '10' is not allowed"),
        ({"memory": "1GiB", "dedline": "9s"}, "key 'plan.dedline' is unknown; did you mean 'plan.deadline'"),
        ({"memory": "1GiB", "probe": 1}, "plan.probe 1 is not allowed: true or false is expected"),
        ({"memory": "1GiB", "probe": True}, "probe takes shares of the deadline; give a deadline"),
    ],
)
def test_mistakes(given: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_task_limits(given)
