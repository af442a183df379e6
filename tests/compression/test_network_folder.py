import pytest
import torch

from neq.compression import read_start, sparsify, write_compressed
from neq.compression.network_folder import read_provenance
from neq.results.best_network import load_best
from neq.utils.errors import UserError


def test_a_folder_reads_as_it_was_written(tiny_run, tmp_path):
    best = load_best(tiny_run)
    made = sparsify(read_start(best), 0.5)
    assert read_provenance(tmp_path / "net") is None
    write_compressed(tmp_path / "net", made, best, {"steps": {"sparsify": 0.5}})
    again = load_best(tmp_path / "net")
    images = torch.randn(2, 3, best.image_size, best.image_size)
    with torch.no_grad():
        assert torch.equal(again.network(images), made.network(images))
    assert (again.classes, again.config) == (best.classes, best.config)
    assert read_start(again).recipe == made.recipe
    assert read_provenance(tmp_path / "net") == {"steps": {"sparsify": 0.5}}


def test_a_folder_that_was_not_finished_holds_no_network(tiny_run, tmp_path):
    best = load_best(tiny_run)
    write_compressed(tmp_path, read_start(best), best, {})
    (tmp_path / "compression.json").unlink()
    assert read_provenance(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_one_line(tiny_run, tmp_path):
    best = load_best(tiny_run)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/net cannot be written \(Not a directory\)"):
        write_compressed(tmp_path / "file" / "net", read_start(best), best, {})


def test_an_int8_file_of_another_network_does_not_stay(tiny_run, tmp_path):
    best = load_best(tiny_run)
    write_compressed(tmp_path, read_start(best), best, {}, int8=b"int8")
    assert (tmp_path / "int8.onnx").read_bytes() == b"int8"
    write_compressed(tmp_path, sparsify(read_start(best), 0.5), best, {})
    assert not (tmp_path / "int8.onnx").exists()
