import json

import pytest

from benchmarks import sweep_overhead
from tests.forked import NEQ, run_forked


def forked(folder, *arguments):
    """The command without the seconds of a start."""
    done = run_forked(NEQ, *arguments, cwd=folder, env={"WANDB_MODE": "disabled"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_both_ways_train_every_cell_and_say_what_is_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep_overhead, "_neq", forked)
    monkeypatch.setitem(sweep_overhead.SETTINGS, "image_size", 16)
    monkeypatch.setattr(sweep_overhead, "PROBE_EPOCHS", 1)
    sweep_overhead.main(["--cells", "2", "--seconds", "1", "--output", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["cells"] == 2
    assert found["epochs"] >= 1
    shown = capsys.readouterr().out
    for name in ("neq sweep", "one process a cell"):
        way = found[name]
        assert 0 < way["training"] < way["wall"]
        assert way["overhead"] == pytest.approx((way["wall"] - way["training"]) / way["training"])
        assert f"{way['overhead']:.1%}" in shown
