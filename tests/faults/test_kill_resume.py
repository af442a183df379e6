import pytest

from benchmarks.kill_resume import differences, main, measure, undisturbed
from neq.training import load_checkpoint

pytestmark = pytest.mark.slow


def test_runs_that_are_killed_at_random_end_as_one_that_is_left_alone(tmp_path):
    counts, wrong = measure(kills=6, terminations=3, seed=1, folder=tmp_path)
    assert wrong == 0
    by_signal = {
        name: sum(counts[key] for key in counts if key[0] == name) for name in ("SIGKILL", "SIGTERM")
    }
    assert by_signal["SIGKILL"] >= 6
    assert by_signal["SIGTERM"] >= 3
    assert counts["SIGKILL", "mid-epoch"] + counts["SIGTERM", "mid-epoch"] > 0


def test_the_comparison_sees_a_difference(tmp_path):
    for name in ("one", "other"):
        undisturbed(tmp_path / name)
    assert differences(tmp_path / "one", tmp_path / "other") == []
    metrics = tmp_path / "one" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"train/top1": ', '"train/top1": 1', 1))
    best = tmp_path / "one" / "checkpoint" / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    (tmp_path / "one" / "checkpoint" / "last.pt").write_bytes(
        (tmp_path / "one" / "checkpoint" / "previous.pt").read_bytes()
    )
    assert load_checkpoint(tmp_path / "one" / "checkpoint" / "last.pt")["progress"]["epoch_state"] is not None
    assert differences(tmp_path / "one", tmp_path / "other") == [
        "last.pt",
        "checkpoint/best.safetensors",
        "metrics.jsonl",
    ]


def test_wrong_arguments_are_refused(capsys):
    assert main(["--kills", "-1"]) == 2
    assert "--kills" in capsys.readouterr().err
