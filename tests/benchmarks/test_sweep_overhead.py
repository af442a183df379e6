import json

import pytest

from benchmarks.sweep_overhead import main


@pytest.mark.slow
def test_both_ways_train_every_cell_and_say_what_is_training(tmp_path, capsys):
    main(["--cells", "2", "--seconds", "1", "--output", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["cells"] == 2
    assert found["epochs"] >= 1
    shown = capsys.readouterr().out
    for name in ("neq sweep", "one process a cell"):
        way = found[name]
        assert 0 < way["training"] < way["wall"]
        assert way["overhead"] == pytest.approx((way["wall"] - way["training"]) / way["training"])
        assert f"{way['overhead']:.1%}" in shown
