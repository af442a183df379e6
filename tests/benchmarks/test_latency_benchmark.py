"""`python -m benchmarks.latency`: held-out selections, predicted and measured."""

import json

import pytest

from benchmarks import latency


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "of_its_own"), [("mbv2", "su1"), ("mcunet-in1", "half of 7 late layers")]
)
def test_selections_that_were_not_measured_are_compared(tmp_path, monkeypatch, capsys, network, of_its_own):
    def measured(step, selections, device):
        return [0.001] * len(selections)

    monkeypatch.setattr(latency, "NETWORKS", ((network, 32, 2),))
    monkeypatch.setattr(latency, "NORM_MODES", ("frozen",))
    monkeypatch.setattr(latency, "measure", measured)
    output = tmp_path / "found.json"
    assert latency.main(["--output", str(output)]) == 0
    (step,) = json.loads(output.read_text())["steps"]
    assert set(step["selections"]) == {*latency.SELECTIONS, of_its_own}
    for each in step["selections"].values():
        assert each == {"predicted_ms": pytest.approx(1, rel=0.02), "measured_ms": 1.0}
    assert "load averages" in capsys.readouterr().out


def test_a_file_in_no_folder_is_refused(tmp_path, capsys):
    assert latency.main(["--output", str(tmp_path / "no" / "found.json")]) == 2
    assert capsys.readouterr().err.startswith("error: output ")
