import json

from benchmarks.planning import markdown
from tests.benchmarks.pages import ROOT


def test_the_page_holds_exactly_what_was_measured():
    report = json.loads((ROOT / "benchmarks/planning.json").read_text())
    assert markdown(report["peaks"]) in (ROOT / "docs/planning.md").read_text()
