import re

from neq.cli import main


def numbers(out, row):
    (line,) = [line for line in out.splitlines() if f"│ {row} " in line]
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= │)", line)[:2]]


def test_the_cost_of_a_scheme_is_told_without_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    flags = [
        "--net_name",
        "mbv2",
        "--image_size",
        "64",
        "--base_batch_size",
        "4",
        "--scheme",
        "mbv2_scheme_1",
    ]
    assert main(["cost", *flags, "--norm_mode", "frozen"]) == 0
    out = capsys.readouterr().out
    assert numbers(out, "updated parameters") == [192312, 2189760]
    assert numbers(out, "MACs forward")[0] == numbers(out, "MACs forward")[1]
    saved = numbers(out, "bytes kept for backward")
    assert 0 < saved[0] < 0.05 * saved[1]
    memory = numbers(out, "bytes of training memory")
    assert memory[0] > saved[0]
    assert re.search(r"features\.1\d\.conv\S* +│ +(\d+)/\1 │", out)
    assert not list(tmp_path.iterdir())


def test_without_a_scheme_the_first_epochs_policy_is_counted(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "--ratio", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "random, norm mode frontier, sgd with momentum" in out
    updated, total = numbers(out, "updated parameters")
    assert total == 543176
    assert 54317 - 9 < updated <= 54318


def test_bad_flags_are_refused(capsys):
    assert main(["cost", "--net_name", "mbv3"]) == 2
    assert "did you mean 'mbv2'" in capsys.readouterr().err
