"""The workflows of GitHub: rights, pins, and that what they call exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RIGHTS: dict[str, dict[str, dict[str, str]]] = {
    "ci.yml": {"everything": {"contents": "read"}},
    "release.yml": {
        "build": {"contents": "read"},
        "attest": {"attestations": "write", "contents": "read", "id-token": "write"},
        "publish": {"id-token": "write"},
        "list": {"contents": "write"},
    },
}
"""Of each job; a right more is a decision."""


def read(path: Path) -> dict[str, Any]:
    """`on` is a truth value in YAML 1.1."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


def runs(path: Path) -> list[str]:
    jobs = read(path)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_there_are_these() -> None:
    assert [path.name for path in FILES] == [*RIGHTS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_rights_are_the_least(path: Path) -> None:
    workflow = read(path)
    own = {name: job.get("permissions", workflow["permissions"])
           for name, job in workflow["jobs"].items()}  # fmt: skip
    assert own == RIGHTS[path.name]
    assert "write" not in workflow["permissions"].values()
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    lines = re.findall(r"uses: (.+)", path.read_text())
    assert len(lines) > 1
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    for job in read(path)["jobs"].values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_an_action_has_one_version() -> None:
    used = [use for path in FILES for use in re.findall(r"uses: (\S+)@(\S+)", path.read_text())]
    assert len(set(used)) == len({name for name, _ in used})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_they_call_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    lines = runs(path)
    for line in lines:
        assert "${{" not in line, "a name from outside in a shell"
        for target in re.findall(r"\bmake ([\w-]+)", line):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for script in re.findall(r"\bbash (\S+)", line):
            assert (ROOT / script).is_file(), script
    assert any("make " in line or "bash " in line for line in lines)


def test_ci_runs_what_the_project_runs() -> None:
    (line,) = runs(ROOT / ".github" / "workflows" / "ci.yml")
    assert line == "bash .ci/run"


def test_a_release_is_a_tag_that_is_the_version() -> None:
    path = ROOT / ".github" / "workflows" / "release.yml"
    assert read(path)["on"] == {"push": {"tags": ["v*"]}}
    (check,) = [line for line in runs(path) if "GITHUB_REF_NAME" in line and "test" in line]
    assert check.split()[1].strip('"').startswith("v$(.venv-release/bin/hatchling")
    assert "RELEASE_VENV := .venv-release" in (ROOT / "Makefile").read_text()


def test_what_is_released_is_compared_checked_and_listed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    release = re.search(r"^release:.*?\n\n", makefile, re.DOTALL | re.MULTILINE)
    assert release is not None
    for words in ("SOURCE_DATE_EPOCH=", "diff --recursive dist/release dist/again",
                  "twine check --strict", "check-wheel-contents"):  # fmt: skip
        assert words in release[0]
    jobs = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    uploads = [step["with"]["path"] for step in jobs["build"]["steps"] if "upload" in str(step)]
    assert uploads == ["dist/release/", "dist/release-sbom.json"]
    assert [job.get("needs") for job in jobs.values()] == [None, "build", "attest", "publish"]
    assert jobs["publish"]["environment"] == "pypi"


def test_the_schema_of_github_takes_them() -> None:
    schemas = pytest.importorskip("check_jsonschema.builtin_schemas")
    jsonschema = pytest.importorskip("jsonschema")
    schema = schemas.get_builtin_schema("vendor.github-workflows")
    validator = jsonschema.validators.validator_for(schema)(schema)
    for path in FILES:
        document = read(path)
        assert [error.message for error in validator.iter_errors(document)] == []
        document["permission"] = document.pop("permissions")
        assert [*validator.iter_errors(document)]
