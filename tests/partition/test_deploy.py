import json

import pytest
import safetensors.torch
import torch

from neq.partition.deploy import (
    FILES,
    MANIFEST,
    Manifest,
    check_splits,
    load_part,
    part_of,
    split,
    write_split,
)
from neq.partition.folding import folded
from neq.partition.networks import BranchedNetwork, joined
from neq.utils.errors import UserError
from tests.partition.devices import CLASSES, IMAGES, network, write_toy
from tests.partition.toys import IMAGE, base


@pytest.mark.parametrize("sync", ["annncna", "ccccccc", "nnnnnna"])
def test_the_parts_are_the_network(tmp_path, sync):
    folder = write_toy(tmp_path / "split", sync)
    assert {each.name for each in folder.iterdir()} == {MANIFEST, *FILES}
    manifest, first = load_part(folder, 0)
    _, second = load_part(folder, 1)
    whole = folded(network(sync)).to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, IMAGE, IMAGE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        x = first.stem(image)
        assert torch.equal(x, second.stem(image))
        for segment in manifest.model.segments:
            outputs = [part.segment(x, segment) for part in (first, second)]
            assert all(each.is_contiguous(memory_format=torch.channels_last) for each in outputs)
            x = joined(segment.sync, outputs)
        assert torch.equal(first.top(x), whole(image))


def test_a_file_holds_the_weights_of_its_device_alone(tmp_path):
    folder = write_toy(tmp_path / "split")
    first, second = (safetensors.torch.load_file(folder / name) for name in FILES)
    assert not [name for name in first if name.startswith("branches.1")]
    assert not [name for name in second if name.startswith(("branches.0", "classifier", "last_conv"))]
    assert torch.equal(first["stem.0.weight"], second["stem.0.weight"])
    assert first.keys() | second.keys() == {
        name for name in folded(network()).state_dict() if "num_batches" not in name
    }


def test_a_device_needs_its_own_file_alone(tmp_path):
    folder = write_toy(tmp_path / "split")
    (folder / FILES[0]).unlink()
    load_part(folder, 1)
    with pytest.raises(UserError, match=r"branch-0.safetensors cannot be read .*; device 0 needs it"):
        load_part(folder, 0)


def test_the_manifest_is_read_as_written(tmp_path):
    folder = write_toy(tmp_path / "split")
    manifest, _ = split(network(), CLASSES, IMAGES)
    found = Manifest.read(folder / MANIFEST)
    assert found == manifest
    assert found.digest == manifest.digest
    assert found.digest != split(network(seed=1), CLASSES, IMAGES)[0].digest
    assert found.digest != split(network(), CLASSES[::-1], IMAGES)[0].digest


def test_files_that_are_damaged_or_of_another_network(tmp_path):
    folder, other = write_toy(tmp_path / "split"), write_toy(tmp_path / "other", seed=1)
    path = folder / FILES[1]
    whole = path.read_bytes()
    for content in (whole[:-8], whole[:4], b"", (other / FILES[1]).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"branch-1.safetensors is damaged, or of another network"):
            load_part(folder, 1)
    load_part(folder, 0)


def test_a_content_that_a_forged_manifest_names():
    manifest, (first, second) = split(network(), CLASSES, IMAGES)
    for content in (second, safetensors.torch.save({"stem.0.weight": torch.zeros(2)})):
        with pytest.raises(UserError, match=r"does not hold the weights of manifest.json's model"):
            part_of(manifest, content, 0)
    with pytest.raises(UserError, match="is no file of weights"):
        part_of(manifest, first[:20], 0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 2}, "is no manifest of this version"),
        ({"classes": []}, "is damaged .*classes"),
        ({"classes": [1]}, "is damaged .*classes"),
        ({"image_size": 0}, "is damaged .*image_size"),
        ({"image_size": True}, "is damaged .*image_size"),
        ({"augmentation": "art"}, "is damaged .*augmentation"),
        ({"mean_std": {"mean": [0, 0, 0]}}, "is damaged"),
        ({"files": {}}, "is damaged .*branch-0"),
        ({"files": None}, "is damaged"),
        ({"model": {}}, "manifest.json: name is missing"),
    ],
)
def test_a_manifest_that_is_none(tmp_path, change, line):
    path = write_toy(tmp_path / "split") / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=line) as error:
        load_part(path.parent, 0)
    assert "\n" not in str(error.value)


def test_a_plain_network_is_not_split():
    for plain in (BranchedNetwork(base()), torch.nn.Linear(1, 1)):
        with pytest.raises(UserError, match="toy is no network of two branches"):
            check_splits(plain, "toy", 1000)


def test_a_network_that_was_changed_is_not_split():
    pruned = network()
    check_splits(pruned, "toy", len(CLASSES))
    pruned.branches[1][2][0].depthwise[0] = torch.nn.Conv2d(4, 4, 3)
    with pytest.raises(UserError, match="toy has other layers than its model"):
        check_splits(pruned, "toy", len(CLASSES))
    with pytest.raises(UserError, match="toy has other layers than its model"):
        check_splits(network(), "toy", 3)


def test_a_split_that_is_cut_off_has_no_manifest(tmp_path, monkeypatch):
    folder = write_toy(tmp_path / "split")
    manifest, contents = split(network(seed=1), CLASSES, IMAGES)

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neq.partition.deploy.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_split(folder, manifest, contents)
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        load_part(folder, 0)
