"""A page printed to PDF."""

import re
import shutil

import pytest

from neq.results.report import pdf
from neq.results.report.page import render
from neq.utils.errors import UserError


def test_without_a_browser_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="printed by Chromium or Chrome, and neither is installed"):
        pdf.print_pdf("<p>page</p>")


def test_a_browser_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    with pytest.raises(UserError, match="/bin/false could not print the page"):
        pdf.print_pdf("<p>page</p>")


@pytest.mark.slow
def test_two_runs_are_two_to_five_pages(reports):
    if not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("no Chromium or Chrome is installed")
    content = pdf.print_pdf(render(reports))
    assert content.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 5
