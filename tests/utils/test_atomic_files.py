import pytest

from neq.utils.atomic_files import atomic_file, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "former")
    with atomic_file(path) as file:
        file.write(b"ne")
        assert path.read_text() == "former"
        file.write(b"w")
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "former")

    def fail():
        with atomic_file(path) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "former"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Quélennec ±")
    assert (tmp_path / "a.txt").read_bytes() == "Quélennec ±".encode()
