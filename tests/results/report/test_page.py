"""The page of a report."""

import json
import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest

from neq.results.report.page import render
from neq.results.report.quality import Quality
from tests.results.browser import browser_tab

HOSTILE = '<script>alert("x")</script>'


class Tags(HTMLParser):
    """The tags of a page, each with its attributes, and those that stay open."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(reports):
    return render(reports, date(2026, 1, 2))


def test_it_is_well_formed_and_holds_everything_itself(page):
    tags = Tags(page)
    assert tags.open == []
    assert not {"script", "link", "iframe", "form", "object"} & {tag for tag, _ in tags.found}
    sources = [given["src"] for tag, given in tags.found if tag == "img"]
    assert all(source.startswith("data:image/") for source in sources)
    assert all("alt" in given for tag, given in tags.found if tag == "img")
    assert "default-src 'none'" in page
    assert not re.findall(r"url\(|@import", page)


def test_it_says_what_the_figures_are(page, reports):
    text = re.sub(r"<[^>]+>", " ", page)
    assert "first and second" in text
    assert "2026-01-02" in text
    for header in ("macro F1", "calibration error ECE (%)", "MACs an image (millions)", "int8, batch 32"):
        assert header in text
    assert "(chosen int8)" in text
    assert "A &lt;b&gt;CPU&lt;/b&gt;" in page
    wrong = reports[0].quality.wrong()[0]
    assert f"{wrong.label}, taken for {wrong.predicted} ({100 * wrong.probability:.1f} %)" in text
    for each in reports[0].quality.confused(6).to_dict("records"):
        assert f"{100 * each['share']:.1f}" in text


def test_the_same_reports_give_the_same_page(page, reports):
    assert render(reports, date(2026, 1, 2)) == page


@pytest.mark.slow
def test_names_are_text_whatever_is_in_them(reports):
    first = reports[0]
    names = (HOSTILE, "$x^2$", "new\nline", "\udcff", "ünï", "文字", *first.quality.evaluation.classes[6:])
    found = replace(first.quality.evaluation, classes=names)
    page = render([replace(first, name=HOSTILE, quality=Quality(found))])
    assert Tags(page).open == []
    assert "<script" not in page
    assert "new\\nline" in page
    assert page.encode("utf-8", "backslashreplace")


@pytest.mark.slow
def test_of_many_classes_the_worst_are_listed(reports):
    first = reports[0]
    found = first.quality.evaluation
    many = replace(found, classes=tuple(f"class {at}" for at in range(40)), logits=found.logits.repeat(1, 4))
    page = render([replace(first, quality=Quality(many))])
    assert "the 30 of 40 with the lowest F1" in page


def test_without_speed_and_epochs(reports):
    page = render([replace(reports[0], speed=None)])
    assert Tags(page).open == []
    assert "Inference" not in page
    assert "Pareto" not in page


@pytest.mark.slow
def test_in_a_browser(page, tmp_path):
    (tmp_path / "report.html").write_text(page)
    with browser_tab(tmp_path) as tab:
        for width in (1280, 390):
            tab.open((tmp_path / "report.html").as_uri(), width)
            assert tab.value("document.documentElement.scrollWidth") <= width
            broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
            assert tab.value(broken) == 0
        assert tab.complaints() == []
        assert all(url.startswith(("file:", "data:", "about:blank")) for url in tab.requests())
        # Cells of the first column are not broken into letters.
        narrow = "Math.min(...[...document.querySelectorAll('td.text')].map(cell => cell.clientWidth))"
        assert tab.value(narrow) > 60
        assert json.loads(tab.value("JSON.stringify(document.title)")) == "first and second: report"
