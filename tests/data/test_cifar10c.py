"""CIFAR-10-C as published."""

from pathlib import Path

import numpy as np
import pytest

from neq.config.schema import DataProvider
from neq.data import open_source, run_source
from neq.data.sources import source_of_arrays
from neq.utils.errors import UserError

PHOTOS = 40


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two corruptions of 40 photos at five severities; the value of a pixel is its row."""
    rows = np.arange(5 * PHOTOS, dtype=np.uint8)
    images = np.zeros((5 * PHOTOS, 4, 4, 3), np.uint8) + rows[:, None, None, None]
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "snow.npy", images[::-1].copy())
    np.save(tmp_path / "labels.npy", np.tile(labels(), 5))
    return tmp_path


def labels() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(PHOTOS) % 10)


def test_a_severity_is_a_stretch_of_the_same_photos(archive: Path) -> None:
    first, third = (open_source("cifar10c", str(archive), f"fog:{severity}") for severity in (1, 3))
    assert first.classes[3] == "cat"
    assert np.array_equal(first.labels, labels())
    assert np.array_equal(third.labels, labels())
    assert [int(first.image(i)[0, 0, 0]) for i in (0, 39)] == [0, 39]
    assert [int(third.image(i)[0, 0, 0]) for i in (0, 39)] == [80, 119]
    assert len({first.fingerprint, third.fingerprint}) == 2


def test_its_photos_are_split_as_the_test_split_of_cifar_10(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no photo is adapted on under a corruption and tested on without it."""
    shares = {"split_shares": (0.3, 0.2, 0.5)}
    clean = np.zeros((PHOTOS, 4, 4, 3), np.uint8)
    c10 = source_of_arrays("0123456789", {"train": (clean[:20], labels()[:20]), "test": (clean, labels())})
    monkeypatch.setattr("neq.data.torchvision_sets.open_c10", lambda root: c10)
    of_c10 = run_source(DataProvider(dataset="c10", split_of="test", **shares)).official
    for split_of in ("test", "all"):
        settings = DataProvider(
            dataset="cifar10c", root=str(archive), corruption="snow:2", split_of=split_of, **shares
        )
        of_snow = run_source(settings).official
        assert set(of_snow) == {"train", "validation", "test"}
        for name, part in of_snow.items():
            assert np.array_equal(of_c10[name], part + 20)


def test_mistakes(archive: Path, tmp_path: Path) -> None:
    def refusal(corruption: str | None, root: Path | None = archive) -> str:
        with pytest.raises(UserError) as caught:
            open_source("cifar10c", None if root is None else str(root), corruption)
        return str(caught.value)

    assert "needs a corruption" in refusal(None)
    assert "give it with --root" in refusal("fog:1", None)
    assert "holds no .npy files" in refusal("fog:1", tmp_path / "nowhere")
    assert "'frost' is unknown. Allowed: fog, snow." in refusal("frost:1")
    np.save(archive / "snow.npy", np.zeros((7, 4, 4, 3), np.uint8))
    assert "uint8 [5 x photos, height, width, 3] is expected" in refusal("snow:1")
    (archive / "snow.npy").write_bytes(b"no array")
    assert "cannot be read as a numpy array" in refusal("snow:1")
    np.save(archive / "labels.npy", np.full(5 * PHOTOS, 10))
    assert "numbers from 0 to 9" in refusal("fog:1")
    (archive / "labels.npy").unlink()
    assert "No such file" in refusal("fog:1")
