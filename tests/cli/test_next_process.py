import sys

import pytest

from neq.cli.next_process import go_on


def test_the_same_python_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(BaseException):
        pass

    def execv(*arguments: object) -> None:
        raise Replaced(*arguments)

    monkeypatch.setattr("neq.cli.next_process.os.execv", execv)
    with pytest.raises(Replaced) as error:
        go_on(["train", "--plan=a b.json"])
    assert error.value.args == (sys.executable, [sys.executable, "-m", "neq", "train", "--plan=a b.json"])
