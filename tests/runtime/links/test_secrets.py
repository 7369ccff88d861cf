"""Secrets of variables and of the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpl_core.errors import UsageError
from stpl_runtime.links.address import parse_address
from stpl_runtime.links.secrets import secret
from stpl_runtime.options import Options


def test_a_secret_of_a_variable_or_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    assert secret("PW", "the password", {"PW": "s3cret"}) == "s3cret"
    assert secret("PW", "the password", {"PW_FILE": str(file)}) == "s3cret"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "the environment has no PW; expected the password; try: export PW=..., or PW_FILE"),
        ({"PW": "a", "PW_FILE": "b"}, "has PW and PW_FILE; expected one"),
        ({"PW_FILE": "not-there"}, "cannot read not-there: No such file"),
        ({"PW_FILE": "/dev/null"}, "/dev/null is empty"),
    ],
)
def test_what_is_no_secret_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        secret("PW", "the password", environment)
    assert message in str(caught.value)


def test_a_queue_takes_its_password_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/word\n")
    monkeypatch.setenv("MQ_FILE", str(file))
    options = Options("mqtt", {"password_env": "MQ"}, ("password_env",))
    assert parse_address("mqtt", "//eva@host/t", "mqtt://HOST/T", options).password == "p@ss/word"
