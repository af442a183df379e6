"""What the pages of benchmarks hold, and how their commands refuse."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def table_of(page: str) -> str:
    """What a page holds between the marks of its tables."""
    text = (ROOT / page).read_text()
    return text.partition("<!-- tables -->\n")[2].partition("<!-- end of tables -->")[0].strip()


def refusal(main, arguments, capsys) -> str:
    """The one line that a benchmark refuses arguments with."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error
