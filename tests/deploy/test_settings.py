"""Settings of a file and of the environment: which one holds, what is refused, what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpl_core.errors import UsageError
from stpl_core.option import MISSING, Option, OptionField, option_fields
from stpl_deploy.cli import run
from stpl_deploy.cli.options.settings import as_toml, doubtful, settings, variable
from tests.advice import commands
from tests.conftest import Cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Some:
    bundle: Annotated[Path, Option("Where.", argument=True)]
    sources: Annotated[Sequence[str], Option("What.", metavar="SOURCE", argument=True)] = ()
    sinks: Annotated[Sequence[str], Option("Whereto.", flag="--sink")] = ()
    state_file: Annotated[Path | None, Option("State.")] = None
    port: Annotated[int, Option("Port.", least=0, most=65535)] = 8765
    share: Annotated[float, Option("Share.", least=0, most=1)] = 0.01
    policy: Annotated[Literal["latest", "pace"], Option("How.")] = "latest"
    page: Annotated[bool, Option("Page.", flag="--page/--no-page")] = False
    at: Annotated[str | None, Option("Time.")] = None


SOME = option_fields(Some)


def read(tmp_path: Path, text: str, verb: Sequence[str] = ("serve",), **env: str) -> dict[str, Any]:
    file = tmp_path / "nowcast.toml"
    file.write_text(text)
    return settings(SOME, verb, file, env)


def test_keys_are_the_options_names(tmp_path: Path) -> None:
    assert [one.key for one in SOME] == [
        "bundle", "source", "sink", "state-file", "port", "share", "policy", "page", "at",
    ]  # fmt: skip
    found = read(tmp_path, 'bundle = "b"\nsource = "s"\nstate_file = "f"\nat = 2026-05-01T12:00:00')
    assert found == {
        "bundle": "b", "sources": ["s"], "state_file": "f", "at": "2026-05-01T12:00:00",
    }  # fmt: skip
    assert read(tmp_path, 'state-file = "f"') == {"state_file": "f"}


def test_a_verbs_table_comes_before_the_top_and_the_environment_before_both(tmp_path: Path) -> None:
    text = "port = 1\nshare = 0.5\n[serve]\nport = 2\n[predict]\nno-matter = 3\n"
    assert read(tmp_path, text) == {"port": 2, "share": 0.5}
    assert read(tmp_path, text, STPL_PORT="3") == {"port": 3, "share": 0.5}
    assert read(tmp_path, "[data.inspect]\nport = 4", ("data", "inspect")) == {"port": 4}
    assert read(tmp_path, "[data.inspect]\nport = 4", ("data", "convert")) == {}


def test_words_of_a_variable_are_split_as_a_shell_does(tmp_path: Path) -> None:
    found = read(tmp_path, "", STPL_SINK="'nc:/my out' jsonl:x", STPL_PAGE="yes", STPL_SHARE="1e-2")
    assert found == {"sinks": ["nc:/my out", "jsonl:x"], "page": True, "share": 0.01}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 3", "unknown key prot; expected an option of this verb, without the dashes"),
        ("prot = 3", "try: port"),
        ("[serve]\nprot = 3", "unknown key serve.prot"),
        ("[serv]", "no verb serv; expected tables for verbs, such as [serve]; try: [serve]"),
        ("[port]", "try: port = VALUE, above the first table"),
        ('port = "3"', "port = '3'; expected a whole number"),
        ("port = 2.5", "expected a whole number"),
        ("port = 70000", "expected 0 to 65535"),
        ("page = 1", "page = 1; expected true or false; try: page = true"),
        ("sink = 3", 'sink = 3; expected a list of texts; try: sink = ["..."]'),
        ("at = 3", "at = 3; expected text in quotes"),
        ('policy = "quick"', "expected one of latest, pace"),
        ("port =", "is not TOML"),
    ],
)
def test_a_file_that_does_not_hold_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "nowcast.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("STPL_PORT", "x", "STPL_PORT=x; expected a whole number"),
        ("STPL_PORT", "70000", "STPL_PORT=70000; expected 0 to 65535; try: STPL_PORT=0"),
        ("STPL_PAGE", "perhaps", "expected 1 or 0; try: STPL_PAGE=1"),
        ("STPL_SINK", "'open", "expected words, those with spaces in quotes"),
        ("STPL_POLICY", "quick", "expected one of latest, pace"),
    ],
)
def test_a_variable_that_does_not_hold_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(SOME, ("serve",), None, {name: text})
    assert message in str(caught.value)


def test_an_empty_variable_is_none() -> None:
    assert settings(SOME, ("serve",), None, {"STPL_PORT": ""}) == {}


def test_a_variable_that_is_nearly_an_option_is_named() -> None:
    (line,) = doubtful(SOME, {"STPL_STAT_FILE": "x", "STPL_TOKEN": "x", "PORT": "1"})
    assert line == "STPL_STAT_FILE in the environment is no option; STPL_STATE_FILE would be"


def test_an_option_of_another_verb_is_not_named(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STPL_SET is for `train`, and nearly STPL_SELECT of `data inspect`."""
    monkeypatch.setenv("STPL_SET", "model.hidden=4")
    monkeypatch.setenv("STPL_SELEC", "level=850")
    done = cli_here("data", "inspect", "missing", "--json")
    assert "STPL_SELEC in the environment is no option; STPL_SELECT would be" in done.stderr
    assert "STPL_SET " not in done.stderr


def values_of(one: OptionField) -> st.SearchStrategy[Any]:
    if get_origin(one.kind) is Sequence:
        return st.lists(st.text(min_size=1), max_size=3).map(tuple)
    if get_origin(one.kind) is Literal:
        return st.sampled_from(get_args(one.kind))
    if one.kind is bool:
        return st.booleans()
    if one.kind is int:
        return st.integers(0, 65535)
    if one.kind is float:
        return st.floats(0, 1)
    text = st.text(min_size=1)
    return text.map(lambda value: str(Path(value))) if one.kind is Path else text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


@hypothesis.settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({one.name: values_of(one) for one in SOME}))
def test_what_is_printed_comes_back(folder: Path, values: dict[str, Any]) -> None:
    text = as_toml(SOME, values)
    if "***" in text:  # something looks like a secret
        return
    found = read(folder, text)
    assert found == {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def test_secrets_are_masked() -> None:
    text = as_toml(SOME, {"sources": ["rtsp://eva:s3cret@host/x?token=abc"], "sinks": ["nc:out"]})
    assert "s3cret" not in text
    assert "abc" not in text
    assert text.startswith("# *** stands for a secret.\n")
    assert "#" not in as_toml(SOME, {"sinks": ["nc:out"]})


def test_the_command_line_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nowcast.toml"
    file.write_text('bundle = "b"\nsource = ["a b", "c"]\nport = 1\npolicy = "pace"\nhorizon = 5\n')
    monkeypatch.setenv("STPL_CONFIG", str(file))
    monkeypatch.setenv("STPL_HORIZON", "3")
    monkeypatch.setenv("STPL_PORT", "2")
    assert run(["serve", "--port", "3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    found = tomllib.loads(printed)
    assert (found["bundle"], found["source"]) == ("b", ["a b", "c"])
    assert (found["port"], found["horizon"], found["policy"]) == (3, 3, "pace")
    file.write_text(printed)
    monkeypatch.delenv("STPL_HORIZON")
    monkeypatch.delenv("STPL_PORT")
    assert run(["serve", "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_a_wrong_key_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nowcast.toml"
    file.write_text("prot = 3\n")
    assert run(["serve", "b", "s", "--config", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: unknown key prot")


def test_every_verb_takes_settings_and_no_two_options_share_a_variable() -> None:
    kinds: dict[str, set[str]] = {}
    leaves = {name: one for name, one in commands().items() if not hasattr(one, "commands")}
    for name, command in leaves.items():
        flags = {flag for option in command.params for flag in option.opts}
        assert {"--config", "--print-config"} <= flags, name
        for option in command.params:
            kinds.setdefault(option.name, set()).add(name)
    assert len(kinds["json"]) > 10


def test_the_tokens_own_variable_is_no_options() -> None:
    from stpl_deploy.cli.serve import ServeCommand

    names = [variable(one) for one in option_fields(ServeCommand)]
    assert len(set(names)) == len(names)
    assert "STPL_TOKEN" not in names
    assert "STPL_TOKEN_FILE" in names
    assert all(one.default is not MISSING or one.about.argument for one in option_fields(Some))


SHELL_WORDS = {
    "bash": ("COMP_WORDS", {"COMP_CWORD": "{}"}),
    "zsh": ("_TYPER_COMPLETE_ARGS", {}),
    "fish": ("_TYPER_COMPLETE_ARGS", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
}


@pytest.mark.parametrize(
    ("shell", "line", "found"),
    [
        ("bash", "stpl-deploy ser", "serve"),
        ("bash", "stpl-deploy data con", "convert"),
        ("bash", "stpl-deploy serve --policy pa", "pace"),
        ("zsh", "stpl-deploy serve --state", "--state-file"),
        ("fish", "stpl-deploy data convert --o", "--out"),
    ],
)
def test_a_shell_completes(shell: str, line: str, found: str) -> None:
    variable_of_line, others = SHELL_WORDS[shell]
    count = str(len(line.split()) - 1)
    env = os.environ | {variable_of_line: line, "_STPL_DEPLOY_COMPLETE": f"complete_{shell}"}
    env |= {name: text.format(count) for name, text in others.items()}
    done = subprocess.run(
        [sys.executable, "-m", "stpl_deploy"],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert found in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    """A real bash sources what `--show-completion` prints and completes a word with it."""
    program = tmp_path / "stpl-deploy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stpl_deploy "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(stpl-deploy --show-completion)"; COMP_WORDS=(stpl-deploy serve --stal); '
        'COMP_CWORD=2; _stpl_deploy_completion stpl-deploy; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "--stale-after", done.stderr
