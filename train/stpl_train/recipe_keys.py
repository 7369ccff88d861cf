"""Every key that a recipe may have, with its default and what it is for, read off the sections."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from stpl_core.codec import FrameCodec
from stpl_train.models import MODELS, model_class
from stpl_train.recipe import (
    ArchiveSection,
    ArraySection,
    AugmentSection,
    LeadsSection,
    MovingMnistSection,
    Recipe,
    TrainingSection,
)

_SOURCES: dict[str, type[BaseModel]] = {
    "moving-mnist": MovingMnistSection,
    "array": ArraySection,
    "archive": ArchiveSection,
}


@dataclass(frozen=True)
class Key:
    """One key."""

    name: str
    """As `--set` takes it: `data.context`."""
    kind: str
    """What it takes, in words of Python."""
    default: Any
    """None too where it must be given: see `required`."""
    required: bool
    about: str


@dataclass(frozen=True)
class KeySection:
    """Keys that stand together."""

    title: str
    keys: tuple[Key, ...]


def recipe_keys(recipe: Recipe | None = None) -> list[KeySection]:
    """The keys of all models and sources, or those of one recipe's own."""
    models = MODELS if recipe is None else [recipe.model.name]
    sources = _SOURCES if recipe is None else {recipe.data.source: type(recipe.data)}
    made = [
        KeySection(f'[model] name = "{name}"', tuple(_keys("model", config)))
        for name in models
        if (config := getattr(model_class(name), "Config", None)) is not None
    ]
    made += [
        KeySection(f'[data] source = "{name}"', tuple(_keys("data", section)))
        for name, section in sources.items()
    ]
    made.append(KeySection("[data.codec]", tuple(_keys("data.codec", FrameCodec))))
    if "archive" in sources:
        made.append(KeySection("[data.augment]", tuple(_keys("data.augment", AugmentSection))))
    made.append(KeySection("[training]", tuple(_keys("training", TrainingSection))))
    if recipe is None or recipe.training.leads is not None:
        made.append(KeySection("[training.leads]", tuple(_keys("training.leads", LeadsSection))))
    return made


def _keys(section: str, model: type[BaseModel]) -> Iterator[Key]:
    texts = attribute_texts(model)
    if section == "model":
        about = "What the model predicts: the frame, or its change (residual)."
        yield Key("model.output", "'frame' | 'residual'", "frame", False, about)
    for name, field in model.model_fields.items():
        if name in ("source", "codec", "augment", "leads"):  # sections of their own
            continue
        required = field.is_required()
        yield Key(
            f"{section}.{name}",
            kind_text(field.annotation),
            None if required else field.get_default(call_default_factory=True),
            required,
            texts.get(name, ""),
        )


def attribute_texts(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field in the source: name -> text in one line."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def kind_text(annotation: Any) -> str:
    """A type as a person reads it: `int`, `'row' | 'column'`, `[int, int, int]`."""
    args = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    if origin is tuple:
        inside = [kind_text(arg) for arg in args if arg is not Ellipsis]
        return f"[{', '.join(inside)}{', ...' if Ellipsis in args else ''}]"
    if hasattr(annotation, "__metadata__"):  # Annotated
        return kind_text(annotation.__origin__)
    if origin in (dict,):
        return "table"
    if args:  # a union, or a Literal's words
        words = [repr(arg) if not isinstance(arg, type) and _plain(arg) else kind_text(arg)
                 for arg in args if arg is not type(None)]  # fmt: skip
        return " | ".join(dict.fromkeys(words))
    return {"str": "text", "Path": "path"}.get(getattr(annotation, "__name__", ""), "") or str(
        getattr(annotation, "__name__", annotation)
    )


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))
