"""The published networks are those of the files."""

import hashlib

import pytest

from neq.partition import BASES, PUBLISHED, published, write_model
from neq.utils.errors import UserError

# SHA-256 of the published files; those of the other two plain networks have an eps, which is not written.
FILES = {
    "fbnet_c": "fe6ef89fa884ec075a6e88b7933372414fa299cc02f9ac96bc5bd9fd32a18637",
    "syncnas_mobilenet_v2_100": "e11435e04fb1da70101b56022c6e76a94fb06d1928c525b711b85c364f03615a",
    "syncnas_mnasnet_b1_100": "1fd12db9874484d045e8654b3a7a97862a7434e32e7b7311668c042dac2f3858",
    "syncnas_fbnet_c_100": "31a30a74b94ef7b798a6c590d3fed12cad5e7ec4036f4e6661b82d7bb872be9e",
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_the_published_file(name, tmp_path):
    write_model(tmp_path / "model.json", published(name))
    assert hashlib.sha256((tmp_path / "model.json").read_bytes()).hexdigest() == FILES[name]


def test_plain_and_branched_networks_differ_in_widths_alone():
    assert len(PUBLISHED) == 6
    for name in BASES:
        plain, two = published(name), published(f"syncnas_{name}_100")
        assert (plain.branches, two.branches) == (1, 2)
        for (blocks,), stage, sync in zip(plain.stages, two.stages, two.sync, strict=True):
            for of_branch in stage:
                shapes = [(b.side, b.kernel, b.stride, b.in_channels, b.out_channels) for b in of_branch]
                expected = [(b.side, b.kernel, b.stride, b.in_channels, b.out_channels) for b in blocks]
                if sync == "c":
                    expected[-1] = (*expected[-1][:-1], expected[-1][-1] // 2)
                assert shapes == expected


def test_an_unknown_name_is_one_line():
    with pytest.raises(UserError, match="network 'mobilenet_v3' is unknown; did you mean 'mobilenet_v2'"):
        published("mobilenet_v3")
