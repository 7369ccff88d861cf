"""The documents as a site: it builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for library in ("material", "mkdocs", "mkdocstrings", "torch"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr  # mkdocs.yml: a warning is an error
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(documents) > 14
    for path in documents:
        assert (site / path).with_suffix(".html").is_file(), path
        assert (site / path).read_text().startswith("# "), path


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe|source)[^>]+src=\"(https?:[^\"]+)\"|"
            r"<link[^>]+rel=\"(?:stylesheet|preconnect|icon)\"[^>]+href=\"(https?:[^\"]+)\"",
            page.read_text(),
        )
        assert loaded == [], page.name


def test_the_reference_is_on_it(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text()
    assert "PredictOptions" in python  # from the docstring of Model.predict
    assert 'id="stpl_deploy.library.model.load"' in python
    assert "--max-nowcasts" in (site / "reference" / "verbs.html").read_text()


def test_the_list_for_programs_leads_somewhere(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    listed = re.findall(r"^- \[.+?\]\((.+?)\): \S", text, re.MULTILINE)
    assert len(listed) > 20
    assert [path for path in listed if not (site / path).is_file()] == []


def test_files_that_documents_link_to_are_copied(site: Path) -> None:
    unit = "runtime/deploy/stpl-stream@.service"
    assert (site / "source" / unit).read_bytes() == (ROOT / unit).read_bytes()
