"""Checkpoints and files of weights, damaged and malicious: one line, and nothing in them is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.networks.weights import load_weights, read_weights
from neq.training import load_checkpoint
from tests.faults.hostile import damaged, refusal, refused, run_refused

pytestmark = pytest.mark.slow

TENSORS = {
    "features.0.weight": torch.arange(48.0).reshape(2, 3, 8),
    "head.bias": torch.zeros(4),
    "n": torch.tensor(3),
}
STATE = {"format": 1, "network": TENSORS, "progress": {"epoch": 3, "chosen": torch.ones(9, dtype=torch.bool)}}


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def saved(value: object) -> bytes:
    """As torch.save writes it."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def check_weights(path: Path) -> None:
    """Whatever is read is tensors by name."""
    found = read_weights(str(path))
    assert all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
def test_damaged_weights(place, ending):
    content = safetensors.torch.save(TENSORS) if ending == ".safetensors" else saved({"state_dict": TENSORS})
    path, refusals = place / f"weights{ending}", 0
    for broken in damaged(content, 120, len(ending)):
        path.write_bytes(broken)
        line = refusal(check_weights, path)
        assert line is None or path.name in line
        refusals += line is not None
    assert refusals > 30


@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints(place):
    content, path, refusals = saved(STATE), place / "last.pt", 0
    for broken in damaged(content, 200):
        path.write_bytes(broken)
        line = refusal(load_checkpoint, path)
        assert line is None or "last.pt" in line
        refusals += line is not None
    assert refusals > 80


def malicious(trace: Path) -> dict[str, bytes]:
    """Files that would make a folder if anything in them was executed."""
    bad = Malicious(trace)
    plain = {**TENSORS, "x": bad}
    legacy = io.BytesIO()
    torch.save({"format": 1, "network": plain}, legacy, _use_new_zipfile_serialization=False)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bad))
        archive.writestr("archive/version", "3")
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:  # as torch.jit.save begins
        archive.writestr("archive/data.pkl", pickle.dumps(bad))
        archive.writestr("archive/constants.pkl", pickle.dumps(bad))
        archive.writestr("archive/version", "3")
    return {
        "pickle": pickle.dumps(bad),
        "pickle-2": pickle.dumps(bad, 2),
        "list": saved([bad]),
        "in a state_dict": saved({"state_dict": plain}),
        "in a checkpoint": saved({**STATE, "progress": bad}),
        "as a key": saved({"format": 1, (1, "a"): bad}),
        "legacy": legacy.getvalue(),
        "zip": inner.getvalue(),
        "script": script.getvalue(),
        "global": b"cposix\nmkdir\n(S'" + str(trace).encode() + b"'\ntR.",
        "builtins": b"cbuiltins\nexec\n(S'import os; os.mkdir("
        + repr(str(trace)).encode().replace(b"'", b'"')
        + b")'\ntR.",
        "numpy": b"cnumpy.core.multiarray\nscalar\n(S'x'\ntR.",
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(malicious(Path("x"))))
def test_nothing_in_a_file_is_executed(tmp_path, kind):
    content, trace = malicious(tmp_path / "trace")[kind], tmp_path / "trace"
    for name in ("weights.pt", "weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(read_weights, str(tmp_path / name), named=name)
        assert not trace.exists()
    refused(load_checkpoint, tmp_path / "weights.pt", named="weights.pt")
    assert not trace.exists()


def test_the_malicious_files_are(tmp_path):
    """What the test above refuses does run where it is unpickled without care."""
    for kind in ("pickle", "global", "builtins"):
        pickle.loads(malicious(tmp_path / kind)[kind])
        assert (tmp_path / kind).is_dir()
    torch.load(io.BytesIO(malicious(tmp_path / "torch")["in a checkpoint"]), weights_only=False)
    assert (tmp_path / "torch").is_dir()


def safetensors_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with a header of any kind."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        safetensors_of({}, length=2**62),
        safetensors_of({}, length=2**63),
        safetensors_of(b"[" * 100_000),
        safetensors_of([]),
        safetensors_of({"a": F32}),
        safetensors_of({"a": {**F32, "shape": [2**40]}}, bytes(8)),
        safetensors_of({"a": {**F32, "shape": [-2]}}, bytes(8)),
        safetensors_of({"a": {**F32, "shape": [2**62, 4]}}, bytes(8)),
        safetensors_of({"a": {**F32, "data_offsets": [0, 2**60]}}, bytes(8)),
        safetensors_of({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
        safetensors_of({"a": {**F32, "dtype": "X"}}, bytes(8)),
        safetensors_of({"a": F32, "b": F32}, bytes(8)),
        safetensors_of({"__metadata__": {"a": 1}}),
        safetensors_of({}),
    ],
    ids=range(16),
)
def test_hostile_safetensors(tmp_path, content):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    refused(read_weights, str(path), named="hostile.safetensors")


NOT_WEIGHTS: list[object] = [
    *(None, 3, "x", [], {}, {"state_dict": {}}, {"state_dict": 3}, {"model": {"a": 1}}, {3: torch.ones(1)}),
    *({"a": [torch.ones(1)]}, [torch.ones(1)], torch.ones(3), {"a\nb": 1}, {"state_dict": {"": None}}),
    {"x" * 5000: 1},
]


@pytest.mark.parametrize("value", NOT_WEIGHTS, ids=range(len(NOT_WEIGHTS)))
def test_what_is_no_weights(tmp_path, value):
    path = tmp_path / "other.pt"
    path.write_bytes(saved(value))
    line = refused(read_weights, str(path), named="other.pt")
    assert len(line) < 1000
    refused(load_checkpoint, path, named="other.pt")


SHAPES = [(), (0,), (1,), (3, 0, 3), (10**3,), (1, 1, 1, 1, 1, 1)]
KINDS = [torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64, torch.bfloat16, torch.uint8]


def test_hostile_tensors_leave_a_network_as_it_is(tmp_path):
    network = build_network("mcunet-in0", 3, 0, "none")
    own = {name: value.clone() for name, value in network.state_dict().items()}
    head = head_name(network)
    path = tmp_path / "hostile.pt"
    name = next(iter(own))
    changes = [{name: torch.zeros(shape)} for shape in SHAPES] + [
        {name: own[name].to(kind)} for kind in KINDS[2:5]
    ]
    changes += [{name + "\n": torch.zeros(1)}, {"": torch.zeros(1)}, {f"{head}.x": torch.zeros(1)}]
    changes += [{name: own[name].to_sparse()}, {name: own[name].to("meta")}]
    for change in changes:
        path.write_bytes(saved({**own, **change}))
        refused(load_weights, network, head, str(path), named="hostile.pt")
        assert all(torch.equal(value, own[key]) for key, value in network.state_dict().items())
    for change in ({f"{head}.weight": torch.zeros(shape)} for shape in SHAPES):
        path.write_bytes(saved({**own, **change}))
        refusal(load_weights, network, head, str(path))
        assert all(torch.equal(value, own[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("kind", ["in a state_dict", "pickle", "script"])
def test_a_run_from_a_malicious_file_is_refused(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pth"
    path.write_bytes(malicious(tmp_path / "trace")[kind])
    argv = ["train", "--net_name", "mcunet-in0", "--dataset", "digits", "--weights", str(path)]
    run_refused(capsys, tmp_path, argv, "model.pth")
