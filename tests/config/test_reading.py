"""YAML files: found, read, and refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neq.config.reading import CATALOG_FILES, MAX_BYTES, configs_folder, find_config, parse_value, read_yaml
from neq.utils.errors import UserError


def refusal(call: Callable[..., object], *args: object) -> str:
    """The text of the one-line error that a call ends in."""
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"", {}),
        (b"# only a comment\n", {}),
        (b"---\n", {}),
        (b"a: 1\r\nb:\r\n  c: x\r\n", {"a": 1, "b": {"c": "x"}}),
        (b"\xef\xbb\xbfa: 1\n", {"a": 1}),
        ("a: é\n".encode(), {"a": "é"}),
    ],
)
def test_files_that_read(tmp_path: Path, raw: bytes, value: dict[str, object]) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(raw)
    assert read_yaml(path) == value
    assert read_yaml(str(path)) == value


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: not UTF-8"),
        (b"a: 1\na: 2\n", "line 2: key 'a' stands there twice"),
        (b"a: 1\n\tb: 2\n", "line 2: a tab"),
        (b"- 1\n- 2\n", "line 1: keys with values are expected, not [1, 2]"),
        (b"just text", "line 1: keys with values are expected, not 'just text'"),
        (b"a: !!python/object/apply:os.system [x]", "line 1: tags are not allowed"),
        (b"a: 1\n---\nb: 1\n", "several documents"),
        (b"a: [1\n", "expected ',' or ']'"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, raw: bytes, problem: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(raw)
    text = refusal(read_yaml, path)
    assert problem in text
    assert "bad.yaml" in text


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(read_yaml, tmp_path / "none.yaml")
    assert "is a folder" in refusal(read_yaml, tmp_path)
    assert "cannot be read" in refusal(read_yaml, "a\x00b")
    assert "cannot be read" in refusal(read_yaml, "x" * 5000)


def test_parse_value() -> None:
    assert parse_value("1e-3") == 0.001
    assert parse_value("no") == "no"
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value(".5") == 0.5
    assert parse_value("") is None
    assert refusal(parse_value, "[1").startswith("'[1' is not a YAML value: ")


def test_find_config_prefers_an_existing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = configs_folder() / "transfer.yaml"
    assert find_config("transfer") == shipped
    assert find_config("transfer.yaml") == shipped
    (tmp_path / "transfer").mkdir()
    assert find_config("transfer") == shipped
    (tmp_path / "transfer.yaml").write_text("manual_seed: 1")
    assert read_yaml(find_config("transfer.yaml")) == {"manual_seed": 1}


def test_find_config_refuses_others(tmp_path: Path) -> None:
    assert "did you mean 'transfer'?" in refusal(find_config, "trasfer")
    table = refusal(find_config, "published_results")  # of figures, and no configuration
    assert "Allowed: adaptation, int8, photos, published, scheme_search, transfer." in table
    assert "is a folder" in refusal(find_config, str(tmp_path))
    for name in ("", "../configs/transfer", "a\x00b", "x" * 5000, *CATALOG_FILES):
        assert "config_file" in refusal(find_config, name)


def test_shipped_files_all_read() -> None:
    paths = sorted(configs_folder().glob("*.yaml"))
    assert {path.stem for path in paths} >= {"transfer", *CATALOG_FILES}
    for path in paths:
        assert read_yaml(path)
