"""The manifests for Kubernetes: its own schemas take them, and the program their command lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

kubernetes_validate = pytest.importorskip("kubernetes_validate")
import yaml  # noqa: E402

from tests.deploy.test_docs import problems  # noqa: E402

FOLDER = Path(__file__).parents[2] / "runtime" / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
VERSIONS = ("1.31", "1.34")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_take_them(path: Path, version: str) -> None:
    for document in documents(path):
        if not document["apiVersion"].startswith("keda.sh"):  # no schema of Kubernetes' own
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_a_mistake() -> None:
    (job,) = documents(FOLDER / "backfill-job.yaml")
    job["spec"]["completion"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[0], strict=True)


def test_the_program_takes_the_command_lines() -> None:
    (job,) = documents(FOLDER / "backfill-job.yaml")
    (shell,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    line = re.sub(r"\$\(\(.*\)\)", "1", shell.removeprefix("exec "))
    assert f"--shard 1/{job['spec']['completions']}" in line
    assert problems(line) == []
    group = documents(FOLDER / "stream-group.yaml")[0]
    words = group["spec"]["template"]["spec"]["containers"][0]["args"]
    assert problems(f"stpl-deploy {' '.join(words)}") == []


def test_keda_scales_what_there_is() -> None:
    (scaled,) = documents(FOLDER / "stream-group-keda.yaml")
    group, budget = documents(FOLDER / "stream-group.yaml")
    words = group["spec"]["template"]["spec"]["containers"][0]["args"]
    target, (trigger,) = scaled["spec"]["scaleTargetRef"], scaled["spec"]["triggers"]
    facts = trigger["metadata"]
    assert (target["kind"], target["name"]) == (group["kind"], group["metadata"]["name"])
    assert f"kafka://{facts['bootstrapServers']}/{facts['topic']}" in words
    assert f"--group={facts['consumerGroup']}" in words
    labels = group["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
