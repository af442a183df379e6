"""`neq compress`: what is printed and written, fine-tuning, and what is refused."""

import json

import pytest
import torch

from neq.cli import main
from neq.results.best_network import load_best
from neq.runs import load_run, read_summary

pytest.importorskip("torch_pruning", reason="the extra compression is not installed")
pytest.importorskip("tensorly", reason="the extra compression is not installed")

FINE_TUNE = ["--fine-tune", "--n_epochs", "1", "--warmup_epochs", "0", "--device", "cpu"]


@pytest.mark.slow
def test_figures_before_and_after(tiny_run, tmp_path, capsys):
    out = tmp_path / "net"
    flags = ["--prune", ".5", "--low-rank", ".6", "--attention", "se@blocks.1", "--sparsify", ".2"]
    assert main(["compress", str(tiny_run), "--output", str(out), *flags]) == 0
    said = capsys.readouterr().out
    assert f"neq train --net_name compressed:{out}" in said
    told = json.loads((out / "compression.json").read_text())
    assert list(told["steps"]) == ["prune", "low_rank", "attention", "sparsify"]
    assert told["before"]["test_top1"] == pytest.approx(read_summary(tiny_run)["test_top1"])
    assert f"{told['after']['parameters']:,d}" in said
    best = load_best(out)
    assert told["after"]["parameters"] == sum(each.numel() for each in best.network.parameters())
    assert told["after"]["parameters"] < 0.6 * told["before"]["parameters"]
    assert told["after"]["macs"] < 0.6 * told["before"]["macs"]
    assert told["after"]["packed_bytes"] < told["after"]["bytes"]


@pytest.mark.slow
def test_fine_tuning_is_a_run_from_the_recipe_and_continues(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["compress", str(tiny_run), "--output", "net", "--prune", ".5", *FINE_TUNE]
    assert main(command) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    run = load_run(tmp_path / folder)
    assert run.config.net_config.net_name == "compressed:file"
    assert run.config.data_provider.dataset == load_run(tiny_run).config.data_provider.dataset
    assert run.config.run_config.n_epochs == 1
    best = load_best(tmp_path / folder)
    pruned = json.loads((tmp_path / "net" / "compression.json").read_text())["after"]["parameters"]
    assert sum(each.numel() for each in best.network.parameters()) == pruned
    weights = (tmp_path / "net" / "best.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert "net is made already" in "".join(capsys.readouterr())
    assert (tmp_path / "net" / "best.safetensors").stat().st_mtime_ns == weights
    assert main(["compress", folder, "--output", "again", "--sparsify", ".5"]) == 0  # of what was fine-tuned
    assert [each.name for each in load_recipe(tmp_path / "again").transforms] == ["widths", "sparse"]


def load_recipe(folder):
    from neq.networks.recipe import read_recipe

    return read_recipe(folder)


@pytest.mark.slow
def test_rounds_reach_the_share_step_by_step(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rounds = ["--sparsify", ".75", "--rounds", "2", *FINE_TUNE]
    assert main(["compress", str(tiny_run), "--output", "net", *rounds]) == 0

    def zeros(folder):
        network = load_best(tmp_path / folder).network
        layers = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
        values = torch.cat([each.weight.flatten() for each in layers])
        return float((values == 0).double().mean())

    assert zeros("net-round-1") == pytest.approx(0.5, abs=0.01)
    assert zeros("net") == pytest.approx(0.75, abs=0.01)


@pytest.mark.slow
def test_rewound_rounds_start_where_the_run_started(tiny_run, tmp_path, monkeypatch):
    from neq.compression.movement import run_start

    monkeypatch.chdir(tmp_path)
    rounds = ["--sparsify", ".75", "--rewind", "--rounds", "2", *FINE_TUNE]
    assert main(["compress", str(tiny_run), "--output", "net", *rounds]) == 0
    start = run_start(load_best(tiny_run)).state_dict()
    for folder, share in (("net-round-1", 0.5), ("net", 0.25)):
        network = load_best(tmp_path / folder).network
        names = [n for n, each in network.named_modules() if isinstance(each, torch.nn.Conv2d)]
        weights = {f"{name}.weight": network.get_parameter(f"{name}.weight") for name in names}
        kept = {name: each != 0 for name, each in weights.items()}
        assert all(torch.equal(each, start[name] * kept[name]) for name, each in weights.items())
        left = torch.cat([each.flatten() for each in kept.values()])
        assert float(left.double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--prune", ".5", "--importance", "velocity"], ["--binarize"]])
def test_what_is_made_is_exported_and_predicted_from(tiny_run, tmp_path, flags, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    assert main(["compress", str(tiny_run), "--output", "net", *flags, *FINE_TUNE]) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    for folder in ("net", run):
        assert main(["export", folder, "--onnx", "net.onnx", "--force"]) == 0
        assert main(["predict", folder, "red.png", "--top", "1"]) == 0
    before, after = (load_best(tmp_path / each).network.state_dict() for each in ("net", run))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_an_int8_file_is_written_beside_its_figures(tiny_run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    out = tmp_path / "net"
    flags = ["--output", str(out), "--quantize", "static"]
    assert main(["compress", str(tiny_run), *flags]) == 0
    said = capsys.readouterr().out
    told = json.loads((out / "compression.json").read_text())
    int8, content = told["int8"], (out / "int8.onnx").read_bytes()
    assert told["steps"] == {}
    assert told["before"] == told["after"]  # the network itself is as it was
    assert (int8["form"], int8["bytes"], int8["in_float"]) == ("static", len(content), [])
    assert 0 <= int8["agreement"] <= 1
    assert f"test top-1 {int8['test_top1']:.2f} %" in " ".join(said.split())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert classes == list(load_best(tiny_run).classes)
    assert main(["compress", str(tiny_run), *flags]) == 0
    assert "is made already" in "".join(capsys.readouterr())
    flags = ["--output", str(out), "--quantize", "dynamic", "--force"]
    assert main(["compress", str(tiny_run), *flags]) == 0
    assert json.loads((out / "compression.json").read_text())["int8"]["form"] == "dynamic"


@pytest.mark.slow
def test_pruning_by_velocity_is_made_from_the_run_alone(tiny_run, tmp_path, capsys):
    net, pruned = str(tmp_path / "net"), tmp_path / "pruned"
    flags = ["--output", net, "--prune", ".5", "--importance", "velocity"]
    assert main(["compress", str(tiny_run), *flags]) == 0
    assert load_recipe(tmp_path / "net").transforms[0].name == "widths"
    flags = ["--output", str(pruned), "--prune", ".5", "--importance", "velocity-least"]
    assert main(["compress", net, *flags]) == 2
    assert "it was changed after training" in capsys.readouterr().err
    assert not pruned.exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "nothing to do; give --prune"),
        (["--prune", "1"], "'1' is not allowed: a share above 0 and below 1"),
        (["--prune", "nan"], "a share above 0 and below 1"),
        (["--attention", "se"], "names no layer; give KIND@LAYER"),
        (["--attention", "sa@blocks.1"], "'sa' is unknown"),
        (["--prune", ".5", "--rounds", "2"], "--rounds needs"),
        (["--quantize", "static", "--fine-tune"], "give it in a command of its own"),
        (["--quantize", "int4"], "int4"),
        (["--quantize", "mixed", "--agreement", "2"], "a share above 0 and below 1"),
        (["--quantize", "static", "--agreement", ".9"], "--agreement is for --quantize mixed"),
        (["--prune", ".5", "--agreement", ".9"], "--agreement is for --quantize mixed"),
        (["--sparsify", ".5", "--binarize"], "binary weights are not zero"),
        (["--sparsify", ".5", "--binarize", "--rounds", "2", "--fine-tune"], "are done once"),
        (["--prune", ".5", "--rewind"], "give it with that step alone"),
        (["--prune", ".5", "--sparsify", ".5", "--rewind"], "give it with that step alone"),
        (["--prune", ".5", "--low-rank", ".5", "--rounds", "2", "--fine-tune"], "done once"),
        (["--prune", ".5", "--fine-tune", "--base_lr", "-1"], "base_lr"),
        (["--prune", ".5", "--fine-tune", "--net_name", "mbv2"], "give settings alone"),
        (["--prune", ".5", "--fine-tune", "--epochs", "2"], "epochs"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tiny_run, tmp_path, capsys, flags, reason):
    assert main(["compress", str(tiny_run), "--output", str(tmp_path / "net"), *flags]) == 2
    line = capsys.readouterr().err
    assert reason in line
    assert line.count("\n") == 1
    assert not (tmp_path / "net").exists()


def test_other_folders_are_left_alone(tiny_run, tmp_path, capsys):
    flags = ["--output", str(tmp_path), "--sparsify", ".5"]
    (tmp_path / "file").write_text("mine")
    assert main(["compress", str(tiny_run), *flags]) == 2
    assert "holds something else; give another folder, or --force" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert main(["compress", str(tiny_run), "--output", str(tiny_run), "--sparsify", ".5", "--force"]) == 2
    assert "is a run, or what is compressed; give another folder" in capsys.readouterr().err
    assert main(["compress", str(tmp_path), "--output", "x", "--prune", ".5"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["compress", str(tiny_run), "--output", str(tmp_path / "file"), "--prune", ".5"]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fine_tuning_that_is_stopped_says_what_continues_it(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped and saved; run the same command again with --resume to continue")

    monkeypatch.setattr("neq.experiment.run.run_training", stopped)
    assert main(["compress", str(tiny_run), "--output", "net", "--sparsify", ".5", *FINE_TUNE]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "neq: stopped and saved; run the same command again to continue"
