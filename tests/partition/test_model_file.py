"""Models as files: read back as they were, and every fault of one in one line."""

import json

import pytest

from neq.partition import PUBLISHED, published, read_model, write_model
from neq.partition.model_file import MAX_BYTES, mapping_of, model_of
from neq.utils.errors import UserError
from tests.partition.toys import base, two


@pytest.mark.parametrize("model", [base(), two(), *map(published, PUBLISHED)], ids=lambda model: model.name)
def test_what_is_written_is_read(model, tmp_path):
    path = tmp_path / "model.json"
    write_model(path, model)
    assert read_model(path) == model
    text = path.read_text()
    write_model(path, read_model(path))
    assert path.read_text() == text


def test_eps_is_read_over():
    assert model_of({**mapping_of(base()), "eps": 1e-5}) == base()


def changed(**changes):
    """The toy's content with keys changed; None removes one."""
    content = {**mapping_of(two()), **changes}
    return {key: value for key, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "a mapping with keys name, act, stem, ... is expected, not []"),
        (changed(act=None), "act is missing"),
        (changed(stages=[]), "key 'stages' is unknown; allowed: name, act"),
        (changed(act=["ReLU"]), "act ['ReLU'] is not allowed"),
        (changed(name=3), "name 3 is not allowed"),
        (changed(stem=[3, 8, 3]), "stem: 4 whole numbers are expected, not [3, 8, 3]"),
        (changed(stem=[3, 8, 3, True]), "stem: 4 whole numbers are expected"),
        (changed(stem=[3, 8, 3, 2.0]), "stem: 4 whole numbers are expected"),
        (changed(bn_momentum="0.1"), "bn_momentum '0.1' is not allowed: a number is expected"),
        (changed(bn_momentum=0), "bn_momentum 0 is not allowed"),
        (changed(sync="annncna"), "sync 'annncna' is not allowed: a list of n, a and c is expected"),
        (changed(sync=[["a"]] * 7), "sync ['a'] behind stage 0 is not allowed"),
        (changed(sync=None), "stage 0 has branches, but there is no sync"),
        (
            {**changed(), "0": [[8, 3, 1, 8, 8, 8]]},
            'branches {"0": [..], "1": [..]} are expected beside sync',
        ),
        ({**changed(), "0": {"0": []}}, 'branches {"0": [..], "1": [..]} are expected'),
        ({**changed(), "0": {"0": [], "1": []}}, "stage 0, branch 0: a list of blocks is expected, not []"),
        (
            {**changed(), "0": {"0": [1], "1": [1]}},
            "stage 0, branch 0, block 0: 6 whole numbers are expected",
        ),
    ],
)
def test_faults_of_content(content, fault, tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_model(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"{", "is no JSON"),
        (b"[" * 10**5, "is no JSON"),
        (b'{"name": "\xff"}', "is no JSON"),
        (b"1" * 5000, "is no JSON"),
        (b" " * (MAX_BYTES + 1), "is larger than 1048576 bytes"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_faults_of_files(raw, fault, tmp_path):
    path = tmp_path / "model.json"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        read_model(path)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
