"""`neq partition profile`."""

import pytest

from neq.cli import main
from neq.partition.device_profile import DeviceProfile, LinkProfile
from tests.partition.devices import write_toy_model

PROFILE = ["partition", "profile", "--repeats=1", "--classes=5", "--allow-busy"]
LINK = LinkProfile(0.25, 1e6, ((4, 0.25),), "loopback")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neq.partition.link_profiling.measure_loopback", lambda timeout, repeats: LINK)


def test_a_profile_of_given_models(tmp_path, capsys):
    path = write_toy_model(tmp_path / "toy.json")
    flags = [f"--models={path}", "--output=board.json", "--device-name=board", "--image-size=24", "--link"]
    assert main([*PROFILE, *flags]) == 0
    out = capsys.readouterr().out
    assert "link to loopback: 0.250 ms and 1.000 GB/s" in out
    assert "board: " in out
    assert "medians of processor time" in out
    assert "toy2" in out
    found = DeviceProfile.read(tmp_path / "board.json")
    assert (found.name, found.image_size, found.clock, found.link) == ("board", 24, "cpu", LINK)
    assert found.environment["threads"] >= 1
    assert found.environment["torch"]
    before = (tmp_path / "board.json").read_bytes()
    assert main([*PROFILE, *flags]) == 2
    assert "board.json exists; --force replaces it" in capsys.readouterr().err
    assert (tmp_path / "board.json").read_bytes() == before


def test_the_link_alone_is_replaced(tmp_path, monkeypatch, capsys):
    path = write_toy_model(tmp_path / "toy.json")
    assert main([*PROFILE, f"--models={path}", "--output=board.json", "--cpu-share=.5"]) == 0
    assert "emulated: all times are divided by a share of 0.5" in capsys.readouterr().out
    before = DeviceProfile.read(tmp_path / "board.json")
    assert before.link is None
    assert before.environment["cpu_share"] == 0.5
    assert main(["partition", "profile", "--output=board.json", "--link", "--only-link"]) == 0
    after = DeviceProfile.read(tmp_path / "board.json")
    assert after.link == LINK
    assert after.blocks == before.blocks


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "--output is missing"),
        (["--output=x.txt"], "--output x.txt is not allowed: a name that ends in .json"),
        (["--output=no/x.json"], "the folder no does not exist"),
        (["--output=x.json", "--models=fbnet_d"], "network 'fbnet_d' is unknown; did you mean 'fbnet_c'?"),
        (["--output=x.json", "--image-size=5"], "--image-size 5 is not allowed: 8 to"),
        (["--output=x.json", "--rank=1"], "--rank is of a link to another device; give --link HOST:PORT"),
        (["--output=x.json", "--only-link"], "--only-link replaces the link of a profile; give --link"),
        (["--output=x.json", "--only-link", "--link"], "x.json cannot be read"),
        (["--output=x.json", "--link=there"], "--link 'there' is not allowed: HOST:PORT is expected"),
        (
            ["--output=x.json", "--allow-busy", "--threads=2"],
            "counts the processor's time of one",
        ),
        (["--output=x.json", "--cpu-share=0"], "a share of a processor from .01 to 1"),
    ],
)
def test_wrong_input_of_a_profile(tmp_path, capsys, flags, line):
    assert main(["partition", "profile", *flags]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_link_whose_other_device_does_not_come(tmp_path, capsys):
    from tests.partition.devices import address

    flags = [f"--link={address()}", "--rank=1", "--timeout=.3"]
    assert main(["partition", "profile", *flags]) == 1
    assert "neq: the link: device 0 has not been found at" in capsys.readouterr().err
