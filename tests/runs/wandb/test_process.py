"""The process that talks to W&B: what it reads of a record. Its way with a server is in test_mirror.py."""

import json

from neq.runs.wandb.process import _line, _Rows


class Sent:
    """Stands for the run of the client."""

    def __init__(self):
        self.steps = []

    def log(self, row, step, commit):
        assert (row["epochs"], commit) == (step, True)
        self.steps.append(step)


def test_each_whole_row_is_sent_once(tmp_path):
    path, run = tmp_path / "metrics.jsonl", Sent()
    rows = _Rows(path, 0)
    rows.send(run)  # before the first epoch
    path.write_text(json.dumps({"epochs": 0}) + "\n" + '{"epochs": 1')
    rows.send(run)
    assert run.steps == [0]
    with path.open("a") as file:
        file.write("}\n")
    rows.send(run)
    rows.send(run)
    assert run.steps == [0, 1]


def test_rows_that_wandb_has_are_not_sent_again(tmp_path):
    path, run = tmp_path / "metrics.jsonl", Sent()
    path.write_text("".join(json.dumps({"epochs": at}) + "\n" for at in range(4)))
    _Rows(path, 2).send(run)
    assert run.steps == [2, 3]


def test_an_error_is_one_line():
    assert _line(ValueError(" first\nsecond")) == "first"
    assert _line(ValueError()) == "ValueError"
