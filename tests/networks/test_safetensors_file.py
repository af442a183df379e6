import pytest
import safetensors.torch
import torch

from neq.networks.safetensors_file import checked_bytes, load_checked
from neq.networks.weights import read_weights
from neq.utils.errors import UserError

TENSORS = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "norm.num_batches_tracked": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(checked_bytes(TENSORS))
    return path


def test_what_is_written_is_read_here_and_by_the_library(file):
    for found in (load_checked(file), safetensors.torch.load_file(file)):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata().keys() == {"format", "neq_sha256"}


def test_the_same_tensors_are_the_same_bytes():
    assert (
        len({checked_bytes(dict(reversed(TENSORS.items()))) for _ in range(20)} | {checked_bytes(TENSORS)})
        == 1
    )


def test_every_changed_value_is_noticed_in_one_line(file):
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for place in range(start, len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match="its checksum is wrong"):
            load_checked(file)
    with pytest.raises(
        UserError, match=r"best.safetensors' cannot be read \(its checksum is wrong: .*\)"
    ) as found:
        read_weights(str(file))
    assert "\n" not in str(found.value)


def test_a_changed_name_is_noticed(file):
    file.write_bytes(file.read_bytes().replace(b"conv.weight", b"donv.weight"))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        load_checked(file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_without_a_checksum_is_read_as_before(tmp_path, metadata):
    path = tmp_path / "old.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata=metadata)
    assert torch.equal(load_checked(path)["conv.weight"], TENSORS["conv.weight"])
