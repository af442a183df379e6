"""Delta checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neq.planning import delta as deltas
from neq.planning.delta import DeltaStore, applied, delta, kept_whole
from neq.utils.errors import UserError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 4))


def changed(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The state after a step of training: four rows of the conv, the norm's statistics, the head."""
    stream = torch.Generator().manual_seed(seed)
    new = {name: value.clone() for name, value in state.items()}
    rows = torch.randperm(16, generator=stream)[:4]
    new["0.weight"][rows] += 0.1 * torch.randn(4, 3, 3, 3, generator=stream)
    new["1.weight"] += 0.01
    new["1.running_mean"] += torch.randn(16, generator=stream)
    new["1.num_batches_tracked"] += 3
    new["3.weight"] += torch.randn(4, 16, generator=stream)
    return new


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and torch.equal(first[name].reshape(-1).view(torch.uint8), second[name].reshape(-1).view(torch.uint8))
        for name in first
    )


def test_head_and_statistics_are_kept_whole() -> None:
    assert kept_whole(network()) == {
        *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
        *("3.weight", "3.bias"),
    }


def test_all_changed_values_restore_every_bit() -> None:
    old = network().state_dict()
    new = changed(old, 1)
    new["0.bias"][3] = -0.0
    old["0.bias"][3] = 0.0
    new["0.bias"][4] = float("inf")
    changes = delta(old, new, 1, kept_whole(network()))
    assert same(applied(old, changes), new)
    assert "1.running_var" not in changes  # nothing of it changed
    assert changes["0.weight#index"].dtype == torch.int32
    assert len(changes["0.weight#index"]) == 4 * 27  # the chosen rows alone
    assert changes["0.bias#index"].tolist() == [3, 4]
    assert changes["1.weight"].shape == (16,)  # whole is smaller than with an index for each value
    assert delta(old, old, 1) == {}


def test_the_largest_change_by_its_tensors_rms_comes_first() -> None:
    old = {"large": torch.full((8,), 10.0), "small": torch.full((8,), 0.1), "even": torch.full((8,), 1.0)}
    new = {name: value.clone() for name, value in old.items()}
    new["large"][:2] += torch.tensor([1.0, -4.0])  # .1 and .4 of the RMS
    new["small"][5] += 0.02  # .2
    new["even"][7] += 0.3  # .3
    kept = []
    for count in (1, 2, 3, 4):
        changes = delta(old, new, count / 4)
        found = {
            (name.removesuffix("#index"), int(place))
            for name, index in changes.items()
            if name.endswith("#index")
            for place in index
        }
        assert len(found) == count
        kept.append(found)
    order = [("large", 1), ("even", 7), ("small", 5), ("large", 0)]
    assert kept == [set(order[:count]) for count in (1, 2, 3, 4)]
    assert applied(old, delta(old, new, 0.25))["large"].tolist() == [10, 6, *[10] * 6]


def test_what_is_kept_whole_does_not_depend_on_the_share() -> None:
    old = network().state_dict()
    new, whole = changed(old, 1), kept_whole(network())
    restored = applied(old, delta(old, new, 0.01, whole))
    assert all(torch.equal(restored[name], new[name]) for name in whole)
    differing = (restored["0.weight"] != new["0.weight"]).sum() + (
        restored["1.weight"] != new["1.weight"]
    ).sum()
    assert int(differing) == 4 * 27 + 16 - 2  # ceil(.01 * 124) values are kept


def test_the_files_have_the_bytes_of_their_values_and_a_header(tmp_path: Path) -> None:
    store, old = DeltaStore(tmp_path / "stored"), network().state_dict()
    full = store.add(0, old, 0.5, kept_whole(network()))
    path = store.add(1, changed(old, 1), 0.5, kept_whole(network()))
    assert (full.name, path.name) == ("00.full.safetensors", "01.delta.safetensors")
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert {"0.weight#index", "0.weight#value", "3.weight"} <= json.loads(content[8:header]).keys()
    whole = 16 * 4 + 8 + 4 * 16 * 4  # running_mean, num_batches_tracked, head
    values = 62  # half of 4 * 27 of the conv, and of 16 of the norm, which changed least
    assert len(content) - header == whole + values * (4 + 4)
    assert same(store.state(), applied(old, delta(old, changed(old, 1), 0.5, kept_whole(network()))))


@pytest.mark.parametrize("rate", [1, 0.3])
def test_folding_restores_the_same_network(
    rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, states = kept_whole(network()), [network().state_dict()]
    for seed in range(6):
        states.append(changed(states[-1], seed))
    results = {}
    for most in (2, 8):
        monkeypatch.setattr(deltas, "MOST_DELTAS", most)
        folder = tmp_path / str(most)
        store = DeltaStore(folder)
        for number, state in enumerate(states):
            store.add(number, state, rate, whole)
        results[most] = store.state()
        names = sorted(path.name.removesuffix(".safetensors") for path in folder.iterdir())
        expected = {
            2: ["04.full", "05.delta", "06.delta"],
            8: ["00.full", *(f"0{n}.delta" for n in range(1, 7))],
        }
        assert names == expected[most]
    assert same(results[2], results[8])
    assert same(results[8], states[-1]) is (rate == 1)


def test_what_a_stop_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "MOST_DELTAS", 2)
    whole, states = kept_whole(network()), [network().state_dict()]
    for seed in range(4):
        states.append(changed(states[-1], seed))
    once, twice = DeltaStore(tmp_path / "once"), DeltaStore(tmp_path / "twice")
    for number, state in enumerate(states):
        once.add(number, state, 0.5, whole)
        twice.add(number, changed(state, 9), 0.5, whole)  # written, but not recorded
        twice.add(number, state, 0.5, whole)
    assert same(once.state(), twice.state())
    for path in sorted(once.folder.iterdir()):
        assert path.read_bytes() == (twice.folder / path.name).read_bytes()


def test_damaged_files(tmp_path: Path) -> None:
    store, old = DeltaStore(tmp_path / "stored"), network().state_dict()
    full, path = store.add(0, old, 1, ()), store.add(1, changed(old, 1), 1, ())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"01.delta.safetensors cannot be read \(its checksum is wrong"):
        store.state()
    full.unlink()
    with pytest.raises(UserError, match="deltas but no whole checkpoint"):
        store.state()
