"""The Dockerfile and the compose file beside it: who runs, what is asked of it, what is pinned."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
from benchmarks import container_steps  # noqa: E402
from tests.deploy.test_docs import problems  # noqa: E402

FOLDER = Path(__file__).parents[2] / "runtime" / "deploy"
DOCKERFILE, COMPOSE = FOLDER / "Dockerfile", FOLDER / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture(scope="module")
def recipe() -> container_steps.Recipe:
    return container_steps.read()


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    return container_steps.instructions(DOCKERFILE.read_text())


def values(lines: list[tuple[str, str]], word: str) -> list[str]:
    return [value for found, value in lines if found == word]


def test_it_does_not_run_as_root(
    lines: list[tuple[str, str]], recipe: container_steps.Recipe
) -> None:
    after = [word for word, _ in lines][-6:]
    assert "USER" in after, "nothing but facts comes after it"
    assert not {"RUN", "COPY", "ADD"} & set(after[after.index("USER") :])
    assert values(lines, "USER") == [f"{recipe.uid}:{recipe.uid}"]
    assert recipe.uid > 999


def test_what_it_stands_on_has_a_version(lines: list[tuple[str, str]]) -> None:
    (base,) = [value for value in values(lines, "ARG") if value.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", base)
    assert {value.split()[0] for value in values(lines, "FROM")} == {"${BASE}"}
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert tag, name
        assert tag != "latest", name


def test_the_pods_run_what_has_a_version() -> None:
    found = {
        path.name: re.findall(r"image: (\S+)", path.read_text())
        for path in (FOLDER / "kubernetes").glob("*.yaml")
    }
    assert sum(map(len, found.values())) == 2
    for name, images in found.items():
        assert all(re.fullmatch(r"[\w-]+:(?!latest)[\w.-]+", image) for image in images), name


def test_what_is_copied_exists_and_is_not_ignored(recipe: container_steps.Recipe) -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for name in recipe.copied:
        assert (container_steps.ROOT / name).exists(), name
        assert f"!{name}" in ignored, name


def test_the_extras_exist(lines: list[tuple[str, str]]) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((container_steps.ROOT / "pyproject.toml").read_text())["project"]
    (given,) = [value for value in values(lines, "ARG") if value.startswith("EXTRAS=")]
    documented = re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE.read_text())
    assert given.removeprefix("EXTRAS=") in documented
    for extras in documented:
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_command_lines_in_its_remarks_are_understood() -> None:
    text = DOCKERFILE.read_text().replace(" \\\n#      ", "")
    found = re.findall(r"stpl-deploy:\w+ ((?:serve|stream) .+)", text)
    assert len(found) == 2
    for line in found:
        assert problems(f"stpl-deploy {line}") == []


class Answer(http.server.BaseHTTPRequestHandler):
    """Says one status at /healthz, and 404 elsewhere."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_its_health_is_what_the_page_says(
    recipe: container_steps.Recipe, monkeypatch: pytest.MonkeyPatch, port: int,
    status: int, healthy: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setenv("STPL_PORT", str(port))
    command = [sys.executable, *recipe.health[1:]]
    assert recipe.health[0] == "python3"
    assert (subprocess.run(command, timeout=30).returncode == 0) is healthy


def test_without_a_page_it_is_not_healthy(
    recipe: container_steps.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STPL_PORT", "9")
    command = [sys.executable, *recipe.health[1:]]
    assert subprocess.run(command, timeout=30, capture_output=True).returncode == 1


def test_the_options_of_the_health_check_exist(lines: list[tuple[str, str]]) -> None:
    (check,) = values(lines, "HEALTHCHECK")
    options = re.findall(r"--([\w-]+)=(\w+)", check.partition("CMD")[0])
    assert {name for name, _ in options} <= {
        "interval", "timeout", "start-period", "start-interval", "retries",
    }  # fmt: skip
    assert "timeout=4" in check, "it gives up before Docker does"
    assert dict(options)["timeout"] == "5s"


def test_the_composed_stream_is_understood(lines: list[tuple[str, str]]) -> None:
    words = SERVICES["stream"]["command"]
    assert problems(f"stpl-deploy {' '.join(words)}") == []
    ports = [port.rpartition(":")[2] for port in SERVICES["stream"]["ports"]]
    assert ports == values(lines, "EXPOSE")
    (source,) = [word for word in words if word.startswith("mqtt://")]
    assert source.split("/")[2] in SERVICES["stream"]["depends_on"]
    written = {word.rpartition(":")[2] for word in words if word.startswith("--sink=nc:")}
    volumes = SERVICES["stream"]["volumes"]
    places = {place.removesuffix(":ro").rpartition(":")[2] for place in volumes}
    assert written | {"/bundle", "/state"} == places


def test_the_composed_services_may_do_little() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
    build = SERVICES["stream"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


def test_the_schema_of_compose_takes_it() -> None:
    schemas = pytest.importorskip("check_jsonschema.builtin_schemas")
    jsonschema = pytest.importorskip("jsonschema")
    schema = schemas.get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    document = yaml.safe_load(COMPOSE.read_text())
    assert [error.message for error in validator.iter_errors(document)] == []
    document["services"]["stream"]["healthchek"] = {}
    assert [*validator.iter_errors(document)]


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint")
    judged = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True)
    assert (judged.returncode, judged.stdout) == (0, "")


def test_the_reader_of_dockerfiles_sees_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE.read_text().replace("EXPOSE 8765", "ADD a b"))
    with pytest.raises(ValueError, match="ADD is not done here"):
        container_steps.read(path)
