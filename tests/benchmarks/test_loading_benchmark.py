import json

import pytest
import torch
from torchvision.transforms import v2

from benchmarks.common import run_benchmark
from benchmarks.data_loading import jitter_batch, main


@pytest.mark.slow
def test_every_stage_and_cache_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    flags = "--image-size 32 --batch-size 8 --images 100 --workers 0,1 --rounds 1"
    assert run_benchmark(main, [*flags.split(), "--output", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"decode", "colour jitter", "colour jitter, on batches"} < set(report["stages_ms"])
    assert all(milliseconds > 0 for milliseconds in report["stages_ms"].values())
    assert [(row["workers"], row["cache"]) for row in report["loading"]] == [
        (workers, cache) for workers in (0, 1) for cache in ("none", "memory", "disk")
    ]
    assert all(row["train"] > 0 and row["evaluate"] > 0 for row in report["loading"])
    assert "images/s" in capsys.readouterr().out


def test_the_jitter_of_a_batch_does_what_that_of_an_image_does():
    image = torch.randint(256, (3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batch = jitter_batch(image.expand(64, -1, -1, -1), 0.4)
        single = torch.stack([v2.ColorJitter(0.4, 0.4, 0.4)(image) for _ in range(64)])
    assert len(torch.unique(batch, dim=0)) > 50
    for statistic in (lambda x: float(x.float().mean()), lambda x: float(x.float().std())):
        assert statistic(batch) == pytest.approx(statistic(single), rel=0.1)
    assert torch.equal(jitter_batch(image[None], 0.0)[0], image)


@pytest.mark.parametrize("workers", ["-1", "two", "0,,1"])
def test_bad_arguments_are_one_line(workers, capsys):
    assert run_benchmark(main, [f"--workers={workers}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
