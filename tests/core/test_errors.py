"""The error tree: exit codes, messages, and the drawing in its docstring."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from stpl_core import errors
from stpl_core.errors import (
    NEWER_PYTHON,
    MissingExtraError,
    RecipeError,
    StplError,
    UsageError,
    first_problem,
    install_command,
)


def descendants(cls: type[StplError]) -> list[type[StplError]]:
    ours = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [cls] + [below for sub in ours for below in descendants(sub)]


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Name -> (parent, exit code where it is drawn), from the docstring."""
    drawn: dict[str, tuple[str | None, int | None]] = {}
    branch: list[tuple[int, str]] = []
    line = re.compile(r"^    ([│├└─ ]*)(\w+(?:Error|Fault))(?: \((\d)\))?")
    for text in (errors.__doc__ or "").splitlines():
        if found := line.match(text):
            depth = len(found[1])
            branch = [(d, name) for d, name in branch if d < depth]
            drawn[found[2]] = (
                branch[-1][1] if branch else None,
                int(found[3]) if found[3] else None,
            )
            branch.append((depth, found[2]))
    return drawn


def test_the_drawn_tree_is_the_tree() -> None:
    classes = descendants(StplError)
    drawn = drawn_tree()
    assert sorted(drawn) == sorted(cls.__name__ for cls in classes)
    for cls in classes[1:]:
        parent, code = drawn[cls.__name__]
        assert parent == cls.__base__.__name__, cls
        assert code in (None, cls.exit_code), cls
    # Every branch off the root states its code.
    assert all(code for parent, code in drawn.values() if parent == "StplError")


@pytest.mark.parametrize("cls", descendants(StplError)[1:])
def test_exit_codes_are_those_of_the_design(cls: type[StplError]) -> None:
    assert cls.exit_code in (2, 3, 4, 5)
    assert cls.__doc__


def test_a_message_says_found_expected_and_fix_in_one_line() -> None:
    error = UsageError("a b", expected="c", fix="d --e")
    assert str(error) == "a b; expected c; try: d --e"
    assert (error.found, error.expected, error.fix) == ("a b", "c", "d --e")
    assert str(UsageError("only this")) == "only this"


def test_a_missing_extra_names_the_line_to_type() -> None:
    error = MissingExtraError("torch", "train")
    assert error.exit_code == 4
    assert "pip install 'stpl-deploy[train]" in str(error)


def test_an_old_python_is_named_where_an_extra_does_not_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 13, "final", 0))
    assert "Python 3.11 or later" in str(MissingExtraError("onnx", "export"))
    assert "Python" not in str(MissingExtraError("h5py", "hdf5"))
    found = metadata.distribution("stpl-deploy")
    url = json.dumps({"url": "file:///opt/stpl"})
    monkeypatch.setattr(type(found), "read_text", lambda self, name: url)
    assert "new/bin/pip install 'stpl-deploy[export] @ file:///opt/stpl'" in str(
        MissingExtraError("onnx", "export")
    )


def test_extras_for_a_newer_python_are_those_of_the_package() -> None:
    found = re.compile(r"([\w-]+).*python_version (<|>=).*extra == ['\"]([\w-]+)")
    needed = {match.groups() for line in metadata.requires("stpl-deploy") or ()
              if (match := found.match(line))}  # fmt: skip
    newer = {
        extra
        for name, bound, extra in needed
        if bound == ">=" and (name, "<", extra) not in needed  # another version is for the older
    }
    assert newer - {"all"} == {*NEWER_PYTHON}


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    batch: pydantic.PositiveInt
    seed: int = 0
    way: Literal["left", "right"] = "left"
    sizes: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"batch": 1, "sead": 3}, ("unknown key", "sead", "batch, seed", "seed")),
        ({}, ("batch", "missing")),
        ({"batch": -4}, ("batch", "-4", "expected greater than 0")),
        ({"batch": "ten"}, ("'ten'; expected an integer; try: --set training.batch=10",)),
        ({"batch": 1.5}, ("1.5; expected an integer",)),
        ({"batch": 1, "way": "up"}, ("expected 'left' or 'right'", "training.way=left")),
        ({"batch": 1, "sizes": [3, "x"]}, ("sizes.1 = 'x'", "--set training.sizes=[10, ...]")),
    ],
)
def test_one_line_for_a_key_that_does_not_hold(
    document: dict[str, int], words: tuple[str, ...]
) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Section.model_validate(document)
    message = str(RecipeError(**first_problem(caught.value, "training", ["batch", "seed"])))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_what_installs_an_extra_names_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command("http") == "pip install 'stpl-deploy[http]'"

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    root = Path(__file__).parents[2]
    assert install_command("http") == f"pip install -e '{root}[http]'"
