import pytest

from neq.cli import main
from neq.partition import write_model
from tests.partition.toys import base, two


def test_show_prints_costs_branches_and_syncs(capsys):
    assert main(["partition", "show", "branched:syncnas_fbnet_c_100"]) == 0
    out = capsys.readouterr().out
    assert "6.736 M parameters, 551.075 M MACs: stem 5.419, head 36.204" in out
    for figure in ("304.087", "205.365", "112x14x14", "87.8", "36.1", "604 936 940 940"):
        assert figure in out


def test_show_reads_files_at_any_size(capsys, tmp_path):
    for name, model in (("two.json", two()), ("plain.json", base())):
        write_model(tmp_path / name, model)
        assert main(["partition", "show", str(tmp_path / name), "--image-size", "33", "--classes", "5"]) == 0
    out = capsys.readouterr().out
    assert "toy2: syncs a n n n c n a, ReLU6, 33 px, 5 classes" in out
    assert "toy: no sync, ReLU6, 33 px, 5 classes" in out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["resnet18"], "network 'resnet18' is unknown. Allowed: fbnet_c"),
        (["none.json"], "model file 'none.json' cannot be read (No such file or directory)"),
        (["fbnet_c", "--image-size", "4"], "--image-size 4 is not allowed: 8 to 4096 pixels"),
        (["fbnet_c", "--classes", "0"], "a whole number from 1 on is expected"),
        ([], "the following arguments are required: MODEL"),
    ],
)
def test_mistakes_are_one_line(arguments, fault, capsys):
    assert main(["partition", "show", *arguments]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1


def test_the_commands_are_listed(capsys):
    assert main(["partition"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("show", "profile", "run"))
    assert main(["partition", "shew"]) == 2
