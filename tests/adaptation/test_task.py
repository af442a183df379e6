"""What all methods share: rounds, scores, and which epoch is kept."""

import pytest
import torch

from neq.adaptation.scores import information
from neq.training import predict, train
from neq.wings.adaptation import METHODS
from tests.adaptation.runs import adaptation, domains, refusal


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"bbse"}))  # which needs a trained network
def test_every_method_runs_for_a_round(tmp_path, method):
    nothing = {"neuron_selection": "none", "initialization": "none"} if method == "adabn" else {}
    with adaptation(tmp_path, method, domains(tmp_path), n_epochs=1, **nothing) as (run, diary):
        before = {name: value.clone() for name, value in run.network.state_dict().items()}
        summary = train(run)
        changed = {name for name, value in run.network.state_dict().items() if not value.equal(before[name])}
    assert 0 <= summary["test_top1_all"] <= 100
    assert summary["val_top1"] is None
    assert torch.isfinite(torch.tensor(diary.reports[0].metrics["test"]["test/loss"]))
    assert changed
    assert all("running" in name for name in changed) == (method == "adabn")
    assert any(name.startswith("head.") for name in changed) == (method not in ("adabn", "shot"))


def test_the_test_split_is_scored_and_all_images_too(tmp_path):
    with adaptation(tmp_path, "source", domains(tmp_path, images=150)) as (run, _):
        counts = {"images": 30, "hits": torch.tensor(15), "other_images": 120, "other_hits": torch.tensor(90)}
        assert run.task.scores(counts) == {"top1": 50.0, "top1_all": 70.0}
        train(run)
        network = run.network.eval()
        domain = run.task.domains
        with torch.no_grad():
            hits = [
                (network(images).argmax(1) == labels).sum()
                for name in ("train", "velocity", "test")
                for images, labels in domain.evaluated_target(name)
            ]
    summary = run.trackers[0].summary
    assert summary["test_top1_all"] == pytest.approx(100 * int(sum(hits)) / 150)


@pytest.mark.parametrize("by", ["im", "snd", "source", "oracle"])
def test_the_epoch_is_kept_that_the_named_score_is_highest_of(tmp_path, by):
    settings = {"select_by": by, "use_validation": True, "n_epochs": 3, "base_lr": 0.3}
    with adaptation(tmp_path, "mcc", domains(tmp_path), **settings) as (run, diary):
        summary = train(run)
        key = "top1" if by in ("source", "oracle") else by
        found = [report.metrics["valid"][f"val/{key}"] for report in diary.reports]
        assert summary[f"val_{key}"] == max(found)
        if by == "im":
            outputs = torch.cat([run.network.eval()(x) for x, _ in run.task.domains.target_batches(None)])
            assert information(outputs.detach()) == pytest.approx(found[-1])
            assert "val/top1" not in diary.reports[0].metrics["valid"]  # no label is looked at
        if by == "oracle":
            assert found == [report.metrics["test"]["test/top1"] for report in diary.reports]


def test_a_choice_needs_a_validation_split_and_the_last_epoch_none(tmp_path):
    found = refusal(tmp_path, "mcc", domains(tmp_path), select_by="im")
    assert "select_by 'im' is not allowed with use_validation false; give use_validation true" in found
    found = refusal(tmp_path, "mcc", domains(tmp_path), use_validation=True)
    assert "select_by 'last' is not allowed with use_validation true" in found


def test_statistics_of_the_target_come_before_the_first_step(tmp_path):
    settings = {"adapt_statistics": True, "norm_mode": "frozen", "n_epochs": 1}
    with adaptation(tmp_path, "source", domains(tmp_path), **settings) as (run, _):
        before = run.network.norm1.running_mean.clone()
        train(run)
        assert not run.network.norm1.running_mean.equal(before)


def test_memory_is_predicted_with_both_domains(tmp_path):
    found = {}
    for method in ("source", "mixed", "dann"):
        with adaptation(tmp_path / method, method, domains(tmp_path)) as (run, _):
            found[method] = predict(run)
    assert found["source"].kept < found["mixed"].kept < found["dann"].kept
    assert 2 * found["source"].batch == found["mixed"].batch


@pytest.mark.slow
def test_velocities_are_measured_on_images_of_the_named_domain(tmp_path):
    settings = {"neuron_selection": "velocity", "initialization": "random", "velocity_images": 5}
    shown, velocities, predicted = {}, {}, {}
    for of in ("source", "target", "both"):
        more = {**settings, "velocity_of": of}
        with adaptation(tmp_path / of, "mcc", domains(tmp_path), **more) as (run, diary):
            data = run.task.velocity_data(run.data)
            shown[of] = torch.cat([each.velocity_images() for each in data])
            predicted[of] = predict(run).measuring
            train(run)
            velocities[of] = diary.reports[-1].velocity
            assert (data[0] is run.data) == (of != "target")
    assert [len(shown[of]) for of in ("source", "target", "both")] == [5, 5, 10]
    assert torch.equal(shown["both"][:5], shown["source"])
    assert shown["target"].mean() > shown["source"].mean()  # a negative
    assert not torch.equal(velocities["source"], velocities["target"])
    assert not torch.equal(velocities["both"], velocities["target"])
    assert predicted["both"] > predicted["source"]
