"""`neq` itself: the line that a stopped command ends with."""

import pytest

from neq import cli


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train"], "run the same command again with --resume to continue from the last checkpoint"),
        (["train", "--dry-run"], "neq: stopped\n"),
        (["train", "--dry_run"], "neq: stopped\n"),
        (["cost"], "neq: stopped\n"),
        (["cells", "x.yaml"], "neq: stopped\n"),
        (["sweep", "x.yaml"], "neq: stopped; run the same command again to continue\n"),
    ],
)
def test_a_checkpoint_is_named_only_where_one_was_saved(monkeypatch, capsys, arguments, line):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", stop)
    assert cli.main(arguments) == 130
    assert line in capsys.readouterr().err
