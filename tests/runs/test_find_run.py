import json

from neq.config import resolve
from neq.runs import find_run, identity, run_folder


def put(folder, identity, finished):
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps(identity))
    if finished:
        (folder / "summary.json").write_text("{}")


def test_a_run_waits_then_is_unfinished_then_done(tmp_path):
    config = resolve({}, {"dataset": "digits"}).config
    folder = tmp_path / run_folder(config)
    assert (find_run(config, tmp_path).folder, find_run(config, tmp_path).state) == (folder, "waiting")
    put(folder, identity(config), finished=False)
    assert find_run(config, tmp_path).state == "unfinished"
    (folder / "summary.json").write_text("{}")
    assert (find_run(config, tmp_path).folder, find_run(config, tmp_path).state) == (folder, "done")


def test_a_run_of_another_setting_or_a_damaged_one_is_not_it(tmp_path):
    config = resolve({}, {"base_lr": 0.1}).config
    other = resolve({}, {"base_lr": 0.2}).config
    put(tmp_path / run_folder(other), identity(other), finished=True)
    damaged = (tmp_path / run_folder(config)).with_name("0-damaged")
    put(damaged, {}, finished=True)
    (damaged / "identity.json").write_text("{")
    assert find_run(config, tmp_path).state == "waiting"


def test_a_run_on_files_is_found_whatever_their_fingerprint(tmp_path):
    config = resolve({}, {"dataset": "image_folder", "root": "photos"}).config
    assert find_run(config, tmp_path).folder.name == "0-..."
    put(tmp_path / run_folder(config, "abc"), identity(config, "abc"), finished=True)
    place = find_run(config, tmp_path)
    assert (place.folder, place.state) == (tmp_path / run_folder(config, "abc"), "done")


def test_a_downloaded_set_is_known_by_name_unless_it_lies_there_as_folders(tmp_path):
    config = resolve({}, {"dataset": "flowers", "root": str(tmp_path)}).config
    assert find_run(config, tmp_path).folder == tmp_path / run_folder(config)
    (tmp_path / "flowers" / "train").mkdir(parents=True)
    assert find_run(config, tmp_path).folder.name == "0-..."
