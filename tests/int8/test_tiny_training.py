"""The reader of tiny-training's files: what it reads, and what it refuses."""

import codecs
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.int8 import Add, Conv, Pool, read_tiny_training
from neq.int8.tiny_training import _MOST_BYTES
from neq.utils.errors import UserError
from tests.int8.toys import content, write

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


def refusal(path):
    """The one line that a file is refused with."""
    with pytest.raises(UserError) as caught:
        read_tiny_training(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert "nothing in the file was executed" in line
    return line


def test_a_network_is_read_as_it_was_written(tmp_path):
    given = content()
    found = read_tiny_training(write(tmp_path / "a.pkl", given))
    assert [(each.name, each.inputs) for each in (*found.operations, found.head)] == [
        ("first_conv", ("image",)),
        ("blocks.0.depthwise", ("first_conv",)),
        ("blocks.0.pointwise2", ("blocks.0.depthwise",)),
        ("blocks.1.pointwise1", ("blocks.0.pointwise2",)),
        ("blocks.1.depthwise", ("blocks.1.pointwise1",)),
        ("blocks.1.pointwise2", ("blocks.1.depthwise",)),
        ("blocks.1.residual", ("blocks.0.pointwise2", "blocks.1.pointwise2")),
        ("pool", ("blocks.1.residual",)),
        ("classifier", ("pool",)),
    ]
    assert [type(each) for each in found.operations[-3:]] == [Conv, Add, Pool]
    params = given["blocks"][1]["depthwise"]["params"]
    conv = found.convs[4]
    assert np.array_equal(conv.weight, params["weight"])
    assert np.array_equal(conv.bias, params["bias"])
    assert np.array_equal(conv.scales, params["w_scales"])
    assert (conv.output.scale, conv.output.zero) == (params["y_scale"], params["y_zero"])
    assert (conv.stride, conv.groups) == (1, 16)
    assert found.convs[0].stride == 2
    assert found.quantization("blocks.1.residual") == found.quantization("pool")


@pytest.mark.parametrize("name", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_old_and_new_names_of_numpy_are_known(name, tmp_path):
    written = pickle.dumps(content(), 2).replace(b"numpy._core.multiarray", name)
    assert name in written
    assert len(read_tiny_training(write(tmp_path / "a.pkl", written)).convs) == 6


def test_dead_channels_and_wide_biases_are_valid(tmp_path):
    given = content()
    params = given["blocks"][0]["depthwise"]["params"]
    params["w_scales"][3] = 3.9e-9
    params["bias"][3], params["bias"][4] = -(2**31), 2**31 - 1
    conv = read_tiny_training(write(tmp_path / "a.pkl", given)).convs[1]
    assert conv.bias[3:5].tolist() == [-(2**31), 2**31 - 1]
    assert conv.scales[3] == np.float32(3.9e-9)


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


class Outside(pickle.Pickler):
    def persistent_id(self, obj):
        return "elsewhere" if isinstance(obj, np.ndarray) else None


def put(value, *place):
    """The content with a value elsewhere."""
    given = content()
    inner = given
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return given


def without(*place):
    given = content()
    inner = given
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return given


FIRST = ("first_conv", "params")
WRONG = {
    "a missing part": (without("classifier"), "classifier is missing"),
    "a missing value": (without(*FIRST, "x_zero"), "first_conv.params.x_zero"),
    "an unknown key": (put(1, *FIRST, "z_scale"), "key 'z_scale' is unknown"),
    "a scale of 0": (put(0.0, *FIRST, "y_scale"), "first_conv.params.y_scale"),
    "a scale below 0": (put(-0.1, *FIRST, "x_scale"), "first_conv.params.x_scale"),
    "a scale that is NaN": (put(float("nan"), *FIRST, "y_scale"), "first_conv.params.y_scale"),
    "an infinite scale": (put(float("inf"), *FIRST, "y_scale"), "first_conv.params.y_scale"),
    "a zero point out of range": (put(128, *FIRST, "y_zero"), "first_conv.params.y_zero"),
    "a zero point that is no integer": (put(1.5, *FIRST, "y_zero"), "first_conv.params.y_zero"),
    "true for a number": (put(True, *FIRST, "y_zero"), "first_conv.params.y_zero"),
    "a weight of floats": (put(np.zeros((8, 3, 3, 3), np.float32), *FIRST, "weight"), "int8 is expected"),
    "a weight of another shape": (put(np.zeros((8, 3, 5, 5), np.int8), *FIRST, "weight"), "has the shape"),
    "a code below the range": (put(np.full((8, 3, 3, 3), -128, np.int8), *FIRST, "weight"), "below -127"),
    "a bias too short": (put(np.zeros(7, np.int32), *FIRST, "bias"), "bias has the shape"),
    "a bias of int64": (put(np.zeros(8, np.int64), *FIRST, "bias"), "i8"),
    "weight scales of 0": (put(np.zeros(8, np.float32), *FIRST, "w_scales"), "not all positive"),
    "weight scales of NaN": (put(np.full(8, np.nan, np.float32), *FIRST, "w_scales"), "not all positive"),
    "big-endian numbers": (put(np.zeros(8, ">i4"), *FIRST, "bias"), "in another form"),
    "an array of objects": (put(np.array([None] * 8), *FIRST, "bias"), "O8"),
    "a list for an array": (put([0] * 8, *FIRST, "bias"), "first_conv.params.bias"),
    "another input scale": (put(0.03, "blocks", 0, "depthwise", "params", "x_scale"), "another scale"),
    "another image scale": (put(0.03, *FIRST, "x_scale"), "another scale"),
    "a residual of another scale": (put(0.03, "blocks", 1, "residual", "params", "x_scale"), "another scale"),
    "a feature mix": (put({}, "feature_mix"), "feature_mix"),
    "no blocks": (put([], "blocks"), "for 8 channels"),
    "groups that do not divide": (put(3, "blocks", 0, "pointwise2", "groups"), "has the shape"),
    "stride 0": (put(0, "first_conv", "stride"), "first_conv.stride"),
    "a list": ([1, 2], "keys with values"),
}


@pytest.mark.parametrize(("given", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_such_network_is_refused(given, reason, tmp_path):
    if reason == "for 8 channels":
        given["classifier"]["in_channel"] = 16
        given["classifier"]["params"]["weight"] = np.zeros((5, 16, 1, 1), np.int8)
        given["classifier"]["params"] |= {"x_scale": 6 / 255, "x_zero": -128}
        reason = "classifier is for 16 channels, its input has 8"
    line = refusal(write(tmp_path / "a.pkl", given))
    assert reason in line
    assert "a.pkl" in line


def test_a_residual_of_maps_that_differ_is_refused(tmp_path):
    given = put(2, "blocks", 1, "depthwise", "stride")
    assert "the inputs of blocks.1.residual differ" in refusal(write(tmp_path / "a.pkl", given))


def test_nothing_is_executed(tmp_path):
    trace = tmp_path / "executed"
    for hostile in (
        Calls(os.mkdir, str(trace)),
        Calls(codecs.encode, "x", "rot13"),
        Calls(np.load, str(trace)),
        Calls(eval, "1"),
    ):
        line = refusal(write(tmp_path / "a.pkl", put(hostile, "first_conv")))
        assert "it asks for" in line or "bytes in another form" in line
    assert not trace.exists()


def test_a_pickle_cannot_change_the_reader(tmp_path):
    # BUILD with a state of (None, attributes) sets attributes of whatever stands on the stack.
    for name in (
        b"numpy\nndarray",
        b"numpy\ndtype",
        b"_codecs\nencode",
        b"numpy.core.multiarray\n_reconstruct",
    ):
        state = pickle.dumps((None, {"__doc__": "changed", "values": 3}), 2)[2:-1]
        write(tmp_path / "a.pkl", b"\x80\x02c" + name + b"\n" + state + b"b.")
        refusal(tmp_path / "a.pkl")
        assert len(read_tiny_training(write(tmp_path / "b.pkl", content())).convs) == 6


def test_objects_outside_the_file_are_refused(tmp_path):
    with (tmp_path / "raw").open("wb") as file:
        Outside(file, 2).dump(content())
    line = refusal(write(tmp_path / "a.pkl", (tmp_path / "raw").read_bytes()))
    assert "objects outside the file" in line


def test_a_short_pickle_cannot_fill_the_memory(tmp_path):
    text = pickle.BINUNICODE + (2**20).to_bytes(4, "little") + b"a" * 2**20
    encode, once = b"c_codecs\nencode\n", b"h\x00h\x01h\x02\x86R"
    start = b"\x80\x02" + encode + b"q\x00" + text + b"q\x01" + b"U\x06latin1q\x02" + b"000]("
    start = start.replace(b"U\x06latin1", b"X\x06\x00\x00\x00latin1")
    line = refusal(write(tmp_path / "a.pkl", start + once * (_MOST_BYTES // 2**20 + 1) + b"e."))
    assert "bytes in another form" in line


def test_damaged_and_other_files_are_refused(tmp_path):
    whole = write(tmp_path / "whole.pkl", content()).read_bytes()
    torch.save({"a": torch.ones(2)}, tmp_path / "torch.pkl")
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    contents = {
        "half.pkl": whole[: len(whole) // 2],
        "changed.pkl": bytes(changed),
        "empty.pkl": b"",
        "text.pkl": b"not a network\n",
        "plain.pkl": pickle.dumps(content(), 2),
        "torch.pkl": (tmp_path / "torch.pkl").read_bytes(),
    }
    for name, damaged in contents.items():
        (tmp_path / name).write_bytes(damaged)
        assert name in refusal(tmp_path / name)
    assert "No such file" in refusal(tmp_path / "absent.pkl")
    refusal(tmp_path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pkl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(_MOST_BYTES + 1))
        archive.writestr("archive/version", "3\n")
    assert "more than" in refusal(tmp_path / "a.pkl")


@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize(
    ("name", "convs", "weights", "biases", "megamacs"),
    [
        ("mbv2-w0.35", 51, 238_688, 5_760, 16.65),
        ("mcunet-5fps", 42, 463_216, 6_008, 22.45),
        ("proxyless-w0.3", 60, 320_816, 5_416, 18.62),
    ],
)
def test_the_published_files(name, convs, weights, biases, megamacs):
    network = read_tiny_training(ASSETS / "weights" / f"tinytraining_{name}.pkl")
    assert len(network.convs) == convs
    assert sum(conv.weight.numel() for conv in network.convs) == weights
    assert sum(conv.bias.numel() for conv in network.convs) == biases
    side, macs = {"image": 128}, 0
    for each in network.operations[:-1]:
        side[each.name] = side[each.inputs[0]]
        if isinstance(each, Conv):
            side[each.name] //= each.stride
            macs += each.weight.numel() * side[each.name] ** 2
    assert round(macs / 1e6, 2) == megamacs
