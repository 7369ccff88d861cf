"""The reference of the bundle's manifest, and its JSON schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from docs.from_code.markdown import code, plain, table

_INTRODUCTION = """# Manifest

A bundle's `manifest.json`, schema version {version}: [as JSON schema](manifest.schema.json). An
unknown key is refused. Beside the keys of `Manifest` it has `manifest_sha256`, the
[checksum of its own bytes](../design.md#the-manifests-checksum-covers-its-bytes).
"""
CHECKSUM = "manifest_sha256"
"""Written with the manifest, and checked before it is parsed (`stpl_core.bundle`)."""


def page() -> str:
    """Every part of the manifest."""
    from stpl_core.manifest import SCHEMA_VERSION, Manifest
    from stpl_train.recipe_keys import attribute_texts, kind_text

    parts = [_INTRODUCTION.format(version=SCHEMA_VERSION)]
    for model in _models(Manifest):
        texts = attribute_texts(model)
        rows = [
            (code(name), code(kind_text(field.annotation)), plain(texts.get(name, "")))
            for name, field in model.model_fields.items()
        ]
        about = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0]
        parts += [f"## {model.__name__}\n", f"{plain(about)}\n", table(("key", "type", ""), rows)]
    return "\n".join(parts)


def schema() -> str:
    """The manifest as JSON schema, for other programs."""
    from stpl_core.manifest import Manifest

    made = Manifest.model_json_schema()
    made["properties"][CHECKSUM] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    made["required"].append(CHECKSUM)
    return json.dumps(made, indent=1)


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and those that it is made of, each once."""
    found: dict[type[BaseModel], None] = {model: None}
    for inside in (
        one for field in model.model_fields.values() for one in _inside(field.annotation)
    ):
        found |= dict.fromkeys(_models(inside))
    return list(found)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _inside(argument)
