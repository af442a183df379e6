"""Files of int8 networks: written, read back, damaged."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from neq.int8 import Images, read_int8, read_tiny_training, write_int8
from neq.utils.errors import UserError
from tests.int8.toys import content, excited, write

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


def network(folder):
    return read_tiny_training(write(folder / "a.pkl", content()))


def same(one, other):
    assert (one.image, one.images, one.classes) == (other.image, other.images, other.classes)
    assert len(one.operations) == len(other.operations)
    for a, b in zip((*one.operations, one.head), (*other.operations, other.head), strict=True):
        assert type(a) is type(b)
        for key, value in vars(a).items():
            there = getattr(b, key)
            if isinstance(value, torch.Tensor):
                assert value.dtype == there.dtype
                assert torch.equal(value, there)
            else:
                assert value == there
    return True


TOYS = {"residual": network, "squeeze and excitation": lambda folder: excited()}


@pytest.mark.parametrize("toy", TOYS)
def test_a_network_is_read_back_and_gives_the_same_bytes(toy, tmp_path):
    there, path = TOYS[toy](tmp_path), tmp_path / "a.safetensors"
    write_int8(path, there)
    assert same(there, read_int8(path))
    before = path.read_bytes()
    write_int8(path, read_int8(path))
    assert path.read_bytes() == before
    tensors = safetensors.torch.load_file(path)
    kinds = {"torch.int8", "torch.int32", "torch.float32"}
    assert {str(tensor.dtype) for tensor in tensors.values()} == kinds
    of_operations = [vars(each) for each in (*there.operations, there.head)]
    assert len(tensors) == sum(
        isinstance(value, torch.Tensor) for each in of_operations for value in each.values()
    )


def test_a_file_without_images_is_of_those_of_tiny_training(tmp_path):
    write_int8(tmp_path / "a.safetensors", network(tmp_path))
    changed(
        tmp_path / "a.safetensors",
        lambda structure, tensors: [structure.pop(k) for k in ("images", "classes")],
    )
    assert read_int8(tmp_path / "a.safetensors").images == Images()


def changed(path, change):
    """Writes a file whose metadata and tensors were changed."""
    tensors = safetensors.torch.load_file(path)
    with safe_open(path, "pt") as file:
        structure = json.loads(file.metadata()["neq_int8"])
    change(structure, tensors)
    safetensors.torch.save_file(tensors, path, {"neq_int8": json.dumps(structure)})


def set_to(value, key):
    return lambda structure, tensors: structure["operations"][0].update({key: value})


WRONG = {
    "format 2": (lambda structure, tensors: structure.update(format=2), "format"),
    "scale 0": (set_to(0.0, "scale"), "scale 0.0 is not a positive number"),
    "scale NaN": (set_to(float("nan"), "scale"), "operations.0.scale"),
    "zero point 300": (set_to(300, "zero"), "zero point 300 is not in -128 .. 127"),
    "stride 0": (set_to(0, "stride"), "stride 0"),
    "unknown type": (set_to("mul", "type"), "operations.0.type"),
    "a head of another type": (lambda structure, tensors: structure["head"].update(type="x"), "head"),
    "a pool that rescales": (
        lambda structure, tensors: structure["operations"][-1].update(scale=1.0),
        "pool changes scale or zero point",
    ),
    "no pool": (lambda structure, tensors: structure["operations"].pop(), "reads 'pool'"),
    "unknown input": (set_to(["x"], "inputs"), "'x', which is no earlier operation"),
    "two inputs": (set_to(["image", "image"], "inputs"), "has 2 inputs"),
    "name given twice": (set_to("pool", "name"), "pool.weight is missing"),
    "tensor missing": (
        lambda structure, tensors: tensors.pop("first_conv.bias"),
        "first_conv.bias is missing",
    ),
    "tensor too many": (lambda structure, tensors: tensors.update(a=torch.ones(1)), "a is of no operation"),
    "float weight": (
        lambda structure, tensors: tensors.update({"first_conv.weight": torch.zeros(8, 3, 3, 3)}),
        "weight is torch.float32",
    ),
    "no classifier": (lambda structure, tensors: structure.pop("head"), "head is missing"),
}


def put(name, key, value):
    """Sets a value of an operation of `excited`."""

    def change(structure, tensors):
        next(each for each in structure["operations"] if each["name"] == name)[key] = value

    return change


def cut(structure, tensors):
    tensors["hidden_act.table"] = tensors["hidden_act.table"][:255].clone()


OTHERS = {
    "a wide window": (put("max", "kernel", 9), "max: kernel, stride and padding are those of no window"),
    "much padding": (put("max", "padding", 2), "max: kernel, stride and padding are those of no window"),
    "max pooling that rescales": (put("max", "scale", 1.0), "max changes scale or zero point"),
    "factors of other shapes": (put("square", "inputs", ["image", "max"]), "the inputs of square differ"),
    "a value before a map": (put("block.scale", "inputs", ["block.gate", "block.act"]), "differ in shape"),
    "a short table": (cut, "hidden_act: table is torch.int8 (255,)"),
    "slopes of NaN": (
        lambda structure, tensors: tensors["hidden_act.slopes"].fill_(float("nan")),
        "hidden_act: slopes are not finite",
    ),
    "names of some classes": (
        lambda structure, tensors: structure["classes"].pop(),
        "4 classes have names, of 5",
    ),
    "images of no size": (lambda structure, tensors: structure["images"].update(size=0), "images of 0 px"),
    "a map for the classifier": (lambda s, t: s["operations"].pop(-3), "reads 'pool', which is no earlier"),
}


@pytest.mark.parametrize(("change", "reason"), OTHERS.values(), ids=OTHERS)
def test_other_operations_are_checked_too(change, reason, tmp_path):
    path = tmp_path / "a.safetensors"
    write_int8(path, excited())
    changed(path, change)
    with pytest.raises(UserError, match=r"a\.safetensors' is no int8 network of neq") as caught:
        read_int8(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_such_network_is_refused(change, reason, tmp_path):
    path = tmp_path / "a.safetensors"
    write_int8(path, network(tmp_path))
    changed(path, change)
    with pytest.raises(UserError, match=r"a\.safetensors' is no int8 network of neq") as caught:
        read_int8(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_int8(path, network(tmp_path))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    plain = safetensors.torch.save({"a": torch.ones(2)})
    rescaled = whole.replace(b"0.023529411764705882", b"0.023529411764705883")
    assert rescaled != whole
    for damaged in (whole[: len(whole) // 2], bytes(flipped), rescaled, b"", b"text", plain):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is no int8 network of neq"):
            read_int8(path)
    with pytest.raises(UserError, match="is no int8 network of neq"):
        read_int8(tmp_path / "absent.safetensors")


@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize("name", ["mbv2-w0.35", "mcunet-5fps", "proxyless-w0.3"])
def test_the_published_networks_are_read_back(name, tmp_path):
    there = read_tiny_training(ASSETS / "weights" / f"tinytraining_{name}.pkl")
    write_int8(tmp_path / "a.safetensors", there)
    assert same(there, read_int8(tmp_path / "a.safetensors"))
