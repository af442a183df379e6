"""The classes of photos, by the best network of a run."""

import numpy as np
import pytest
import torch
from PIL import Image

import neq
from neq.config import dataset
from neq.data import open_data, run_source
from neq.data.splits import split
from neq.results.best import copy_best
from neq.results.best_network import load_best, network_folder
from neq.results.prediction import Prediction, image_files, predict, table
from neq.utils.errors import UserError


@pytest.fixture(scope="module")
def photos(tiny_run, tmp_path_factory):
    """The test split of a run as files, in its order, with their labels."""
    best, folder = load_best(tiny_run), tmp_path_factory.mktemp("photos")
    source = run_source(best.config.data_provider)
    numbers = split(source, best.config.data_provider, best.config.manual_seed)["test"]
    files = []
    for at, number in enumerate(numbers):
        files.append(folder / f"{at:04}.png")
        Image.fromarray(source.image(int(number)).permute(1, 2, 0).numpy()).save(files[-1])
    return files, source.labels[numbers]


@pytest.mark.slow
def test_the_accuracy_over_the_test_split_is_the_recorded_one(tiny_run, photos):
    run, (files, labels) = neq.load_run(tiny_run), photos
    found = run.predict(files, top=1)
    hits = [int(each.classes[0]) == label for each, label in zip(found, labels, strict=True)]
    assert 100 * sum(hits) / len(hits) == run.summary["test_top1"]


def test_probabilities_are_bit_for_bit_those_of_the_evaluation(tiny_run, photos):
    best = load_best(tiny_run)
    with open_data(best.config.data_provider, dataset("digits"), 0) as data:
        images, _ = next(data.eval_batches("test"))
    with torch.no_grad():
        network = best.network.to(memory_format=torch.channels_last)
        expected = network(images.contiguous(memory_format=torch.channels_last)).softmax(1)
    found = list(predict(load_best(tiny_run), photos[0][: len(images)], top=10))
    for each, shares in zip(found, expected, strict=True):
        assert each.probabilities == tuple(sorted(shares.tolist(), reverse=True))
        assert each.classes[0] == best.classes[int(shares.argmax())]
        assert abs(sum(each.probabilities) - 1) < 1e-5


def test_one_image_in_every_form(tiny_run, photos):
    best, path = load_best(tiny_run), photos[0][0]
    with Image.open(path) as image:
        pixels = np.array(image)
        forms = [
            str(path),
            path,
            image.copy(),
            pixels,
            pixels[:, :, 0],
            torch.from_numpy(pixels).movedim(2, 0),
        ]
    forms += [torch.from_numpy(pixels[:, :, :1]).movedim(2, 0)]
    found = [next(predict(best, form)) for form in forms]
    assert len({each.probabilities for each in found}) == 1
    assert [each.image for each in found] == [str(path)] * 2 + ["0"] * 5
    batch = np.stack([pixels, pixels])
    assert [each.classes for each in predict(best, batch)] == [found[0].classes] * 2
    assert [each.image for each in predict(best, torch.from_numpy(batch).movedim(3, 1))] == ["0", "1"]
    assert len(found[0].classes) == 5


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3)), torch.zeros(3, 8, 8), np.zeros((8, 8, 5), np.uint8), np.zeros(3, np.uint8)]
)
def test_values_that_are_no_image(tiny_run, wrong):
    with pytest.raises(UserError, match=r"is no image; allowed: a path"):
        list(predict(load_best(tiny_run), [wrong]))
    with pytest.raises(UserError, match="17 is no image"):
        list(predict(load_best(tiny_run), [17]))


def test_what_cannot_be_read_has_its_error_in_its_place(tiny_run, photos, tmp_path):
    broken = tmp_path / "bro\nken.png"
    broken.write_bytes(photos[0][1].read_bytes()[:60])
    (empty := tmp_path / "empty.jpg").touch()
    found = list(predict(load_best(tiny_run), [photos[0][0], broken, empty, tmp_path / "gone.png"]))
    assert [bool(each.error) for each in found] == [False, True, True, True]
    assert found[1].classes == ()
    assert str(found[1]).startswith(f"{tmp_path}/bro\\nken.png: cannot be read (")
    assert found[2].error == "the file is empty"
    assert found[3].error == "No such file or directory"
    assert set(table(found)["image"]) == {str(photos[0][0])}


def test_a_prediction_as_text_and_as_rows():
    found = Prediction("a.jpg", ("cat", "dog"), (0.9731, 0.0269))
    assert str(found) == "a.jpg: cat (97.3 %), dog (2.7 %)"
    rows = table([found]).to_dict("records")
    assert rows[1] == {"image": "a.jpg", "rank": 2, "class": "dog", "probability": 0.0269}


def test_files_of_folders(tmp_path):
    for name in ("b.jpg", "a.PNG", "in/c.webp", ".hidden.png", "notes.txt", "in/.git/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    found = image_files([tmp_path / "notes.txt", tmp_path])
    assert found == [str(tmp_path / name) for name in ("notes.txt", "a.PNG", "b.jpg", "in/c.webp")]
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match=r"texts has no image \(it is empty\)"):
        image_files([tmp_path / "texts"])
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(UserError, match=r"none of its 1 files has the ending of one"):
        image_files([tmp_path / "texts"])
    with pytest.raises(UserError, match="gone is neither an image file nor a folder"):
        image_files([tmp_path / "gone"])


def test_a_copy_and_the_file_of_weights_stand_for_the_run(tiny_run, photos, tmp_path):
    copy_best(tiny_run, tmp_path / "copy")
    expected = list(predict(load_best(tiny_run), photos[0][:3]))
    for given in (tiny_run / "checkpoint" / "best.safetensors", tmp_path / "copy" / "best.safetensors"):
        assert list(predict(load_best(network_folder(given)), photos[0][:3])) == expected
    assert neq.load_run(tmp_path / "copy").predict(photos[0][:3]) == expected
