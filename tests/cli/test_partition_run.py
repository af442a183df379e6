"""`neq partition split` and `neq partition run`."""

import json
import os
import signal
import time

import psutil
import pytest
from PIL import Image

from neq.cli import main
from neq.partition.deploy import FILES, MANIFEST, load_part
from neq.partition.meeting import listening
from tests.partition.devices import address, device, latency_of, write_toy, write_toy_model
from tests.training.distributed.together import ended


def photos(folder, count=3):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (20, 24), (40 * number, 90, 200 - 60 * number)).save(folder / f"{number}.png")
    return folder


def both(folder, *flags, other=None, seconds=120):
    """Exit codes, outputs and errors of both devices."""
    at = address()
    started = [device(0, folder, at, *flags), device(1, other or folder, at, "--timeout=60")]
    return ended(started, seconds)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "split")


@pytest.mark.slow
def test_images_are_classified_and_the_latency_is_reported(split, tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "3.png").write_bytes(b"none")
    flags = ["--images", str(folder), "--timeout=60", "--top=2", "--repeats=2"]
    files = [f"--output={tmp_path}/found.csv", f"--latency={tmp_path}/latency.json"]
    (code, output, error), (other, second, _) = both(split, *flags, *files)
    assert (code, other) == (1, 0), error  # a photo cannot be read
    assert "3.png: cannot be read" in output
    assert "sync 0: waiting" in output
    assert "sync 0: waiting" in second
    rows = (tmp_path / "found.csv").read_text().splitlines()
    assert rows[0] == "image,rank,class,probability"
    assert len(rows) == 1 + 3 * 2
    assert {row.split(",")[2] for row in rows[1:]} <= {"ant", "bee", "cat", "dog", "eel"}
    found = latency_of(tmp_path / "latency.json")
    assert found["images"] == 6
    assert found["cpu_share"] == 1
    assert len(found["devices"]) == 2


@pytest.mark.slow
def test_a_model_by_file_is_run_at_random_and_slowed(tmp_path):
    path = write_toy_model(tmp_path / "toy.json")
    flags = ["--repeats=3", "--timeout=60", "--cpu-share=.5", "--slow-by=sleep"]
    (code, output, error), (other, _, second) = both(path, *flags, f"--latency={tmp_path}/latency.json")
    assert (code, other) == (0, 0), error + second
    assert "medians of 3 images" in output
    assert latency_of(tmp_path / "latency.json")["slow_by"] == "sleep"


@pytest.mark.slow
def test_devices_of_different_splits_both_end(split, tmp_path):
    other = write_toy(tmp_path / "other", seed=1)
    for code, output, error in both(split, "--timeout=60", other=other):
        assert code == 2
        assert error.count("\n") == 1
        assert "the two devices do not run the same: the manifest is " in error
        assert not output


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_device_that_is_killed_or_stopped_ends_the_other_in_time(split, rank, number):
    at = address()
    started = [device(0, split, at, "--repeats=1000000", "--timeout=4"), device(1, split, at, "--timeout=4")]
    try:
        _wait_for_exchange(started)
        start = time.monotonic()
        os.kill(started[rank].pid, number)
        _, error = started[1 - rank].communicate(timeout=120)
        assert time.monotonic() - start < 120  # 4 s, and what a busy machine takes
    finally:
        for each in started:
            each.kill()
    assert started[1 - rank].returncode == 1
    assert error.count("\n") == 1
    assert "neq: the other device has " in error
    assert ("ended" if number == signal.SIGKILL else "not answered for 4 s") in error


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_device_that_is_late_is_waited_for(split, rank):
    at = address()
    started = [
        device(0, split, at, "--repeats=1000000", "--timeout=60"),
        device(1, split, at, "--timeout=60"),
    ]
    try:
        _wait_for_exchange(started)
        os.kill(started[rank].pid, signal.SIGSTOP)
        time.sleep(0.5)
        assert started[1 - rank].poll() is None
        os.kill(started[rank].pid, signal.SIGCONT)
        _wait_for_exchange(started)
        started[0].send_signal(signal.SIGINT)
        found = ended(started, 120)
    finally:
        for each in started:
            each.kill()
    assert [code for code, *_ in found] == [130, 1], found


@pytest.mark.slow
def test_ctrl_c_ends_a_device_that_waits_for_the_other(split):
    waiting = device(0, split, address(), "--timeout=60")
    until = time.monotonic() + 120
    while not any(each.status == "LISTEN" for each in psutil.Process(waiting.pid).net_connections()):
        assert time.monotonic() < until
        time.sleep(0.02)
    waiting.send_signal(signal.SIGINT)
    ((code, _, error),) = ended([waiting], 120)
    assert (code, error) == (130, "neq: stopped\n")


def _wait_for_exchange(devices, seconds=120):
    """Waits until the devices exchange maps: they then work, and no longer load."""
    until = time.monotonic() + seconds
    processes = [psutil.Process(each.pid) for each in devices]
    before = None
    while time.monotonic() < until:
        assert [each.poll() for each in devices] == [None, None], devices[0].communicate()
        # One connection to meet, one of the store or two, and gloo's.
        if all(sum(c.status == "ESTABLISHED" for c in each.net_connections()) >= 3 for each in processes):
            now = [each.num_ctx_switches().voluntary for each in processes]
            before = before or now
            # More than the rest of connecting takes; at each exchange a device waits once or more.
            if all(b > a + 100 for a, b in zip(before, now, strict=True)):
                return
        time.sleep(0.02)
    raise AssertionError("the devices do not exchange anything")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_device_that_does_not_come(split, capsys, rank):
    start = time.monotonic()
    assert (
        main(["partition", "run", str(split), f"--rank={rank}", f"--address={address()}", "--timeout=.3"])
        == 1
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"neq: device {1 - rank} has not " in error
    assert time.monotonic() - start < 120


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "the following arguments are required: --rank"),
        (["--rank=2"], "argument --rank: invalid choice"),
        (["--rank=0", "--address=here"], "--address 'here' is not allowed: HOST:PORT is expected"),
        (["--rank=1", "--repeats=3"], "are those of device 0; leave them out"),
        (["--rank=1", "--images", "x.png"], "are those of device 0; leave them out"),
        (["--rank=0", "--output=x.csv"], "--output is the table of --images; give images"),
        (["--rank=0", "--images", "none.png"], "none.png is neither an image file nor a folder"),
        (["--rank=0", "--latency=x.txt"], "a name that ends in .json"),
        (["--rank=0", "--latency=no/x.json"], "the folder no does not exist"),
        (["--rank=0", "--timeout=0"], "'0' is not allowed: seconds from .1 to 600"),
        (["--rank=0", "--timeout=nan"], "'nan' is not allowed"),
        (["--rank=0", "--cpu-share=2"], "'2' is not allowed: a share of a processor"),
        (["--rank=0", "--threads=0"], "a whole number from 1 on"),
    ],
)
def test_wrong_input_of_a_run(split, tmp_path, monkeypatch, capsys, flags, line):
    monkeypatch.chdir(tmp_path)
    assert main(["partition", "run", str(split), *flags]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(split, capsys):
    with listening("127.0.0.1", 0) as server:
        at = f"127.0.0.1:{server.getsockname()[1]}"
        assert main(["partition", "run", str(split), "--rank=0", f"--address={at}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--address {at} cannot be listened at (Address already in use)" in error


@pytest.mark.parametrize(
    ("network", "line"),
    [
        ("none", "'branched:none'"),
        (".", "has no manifest.json; make it with neq partition split"),
        ("mobilenet_v2", "mobilenet_v2 is no network of two branches"),
    ],
)
def test_networks_that_cannot_be_run(tmp_path, monkeypatch, capsys, network, line):
    monkeypatch.chdir(tmp_path)
    assert main(["partition", "run", network, "--rank=0"]) == 2
    assert line in capsys.readouterr().err


def test_a_model_is_split_once(tmp_path, capsys):
    path, output = write_toy_model(tmp_path / "toy.json"), tmp_path / "split"
    assert main(["partition", "split", str(path), f"--output={output}", "--image-size=12"]) == 0
    out = capsys.readouterr().out
    assert f"neq partition run {output} --rank 0" in out
    manifest, _ = load_part(output, 1)
    assert manifest.images.size == 12
    assert manifest.model.stages[0][0][0].side == 6
    assert len(manifest.classes) == 1000
    before = {name: (output / name).read_bytes() for name in (MANIFEST, *FILES)}
    assert main(["partition", "split", str(path), f"--output={output}"]) == 2
    assert "holds something; give another folder, or --force" in capsys.readouterr().err
    assert main(["partition", "split", str(path), f"--output={output}", "--image-size=12", "--force"]) == 0
    assert before == {name: (output / name).read_bytes() for name in before}


@pytest.mark.slow
def test_a_trained_network_is_split_and_predicts_as_its_run(tmp_path, capsys):
    path, run, output = write_toy_model(tmp_path / "toy.json"), tmp_path / "run", tmp_path / "split"
    flags = ["--n_epochs=1", "--warmup_epochs=0", "--image_size=16", "--ratio=.5", "--device=cpu"]
    assert main(["train", f"--net_name=branched:{path}", *flags, f"--run-dir={run}"]) == 0
    assert main(["partition", "split", str(run), f"--output={output}"]) == 0
    folder = photos(tmp_path / "photos", 2)
    (code, out, error), _ = both(output, "--images", str(folder), "--timeout=60", "--top=1")
    assert code == 0, error
    capsys.readouterr()
    assert main(["predict", str(run), str(folder), "--top=1", "--device=cpu"]) == 0
    expected = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines() if ".png" in line]
    assert expected == [line.partition(" (")[0] for line in out.splitlines() if ".png" in line]
    assert json.loads((output / MANIFEST).read_text())["classes"] == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["syncnas_mobilenet_v2_100"], "the following arguments are required: --output"),
        (["fbnet_c", "--output=x"], "fbnet_c is no network of two branches"),
        (["fbnet_d", "--output=x"], "'branched:fbnet_d'"),
        (["syncnas_fbnet_c_100", "--output=x", "--image-size=5"], "--image-size 5 is not allowed: 8 to"),
        (["syncnas_fbnet_c_100", "--output=file"], "--output file is a file; give a folder"),
    ],
)
def test_wrong_input_of_a_split(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["partition", "split", *arguments]) == 2
    assert line in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
