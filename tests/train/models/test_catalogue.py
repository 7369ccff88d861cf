"""`stpl-deploy models`: what is counted equals what was counted in the authors' own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stpl_deploy.cli import app, verbs
from stpl_train.catalogue import ORIGINS, catalogue, entry, markdown
from stpl_train.forecaster import FrameShape
from stpl_train.models import MODELS, build_model

DOCS = Path(__file__).parents[3] / "docs" / "models.md"

TAXIBJ, KTH, RADAR = (2, 32, 32), (1, 128, 128), (1, 100, 100)
LN = {"norm": "ln_chw"}


def test_every_model_has_an_origin() -> None:
    assert set(ORIGINS) == set(MODELS)


@pytest.mark.parametrize(
    ("model", "frame", "keys", "parameters"),
    [
        ("convlstm", (1, 64, 64), {}, 11_675_648),
        ("predrnn", (1, 64, 64), {}, 23_838_720),
        ("predrnn", (1, 64, 64), LN, 27_770_880),
        ("predrnn", (1, 64, 64), {"hidden": 64}, 6_049_792),
        ("predrnn", (1, 64, 64), {"hidden": 64, **LN}, 8_015_872),
        ("predrnn", (1, 100, 100), {"layers": 2, "kernel": 3}, 3_883_008),
        ("predrnn-v2", (1, 64, 64), {}, 23_855_104),
        (
            "predrnn-zigzag",
            (1, 64, 64),
            {"peepholes": False, "bias": False},
            6_760_448,
        ),
        ("predrnn-zigzag", (1, 64, 64), {"bias": False}, 7_153_664),
        ("predrnn-pp", (1, 64, 64), {"hidden": [128] * 4}, 35_307_520),
        ("predrnn-pp", (1, 64, 64), {"hidden": [64] * 4}, 8_916_992),
        ("mim", (1, 64, 64), {"hidden": 128}, 37_945_344),  # 38,043,648 less 98,304 unused
        ("e3d-lstm", (1, 64, 64), {}, 12_898_832),
        ("modernn", (1, 64, 64), {}, 5_867_600),
        ("modernn", (1, 64, 64), {"kernel": 5}, 7_964_752),
        ("modernn", TAXIBJ, {"patch": 2}, 5_866_568),
        ("modernn", TAXIBJ, {}, 4_395_104),
        ("modernn", KTH, {}, 11_765_840),
        ("modernn", KTH, {"patch": 8}, 5_873_792),
        ("modernn", RADAR, {"patch": 5}, 6_974_681),
        ("cms-lstm", (1, 64, 64), {}, 7_967_580),
        ("cms-lstm", (1, 64, 64), {"kernel": 5}, 10_589_020),
        ("cms-lstm", (1, 64, 64), {"scales": []}, 2_918_480),
        ("cms-lstm", (1, 64, 64), {"context": False}, 7_410_524),
        ("cms-lstm", KTH, {}, 15_831_900),
        ("cms-lstm", RADAR, {"patch": 5}, 9_443_301),
        ("sa-convlstm", (1, 64, 64), {}, 7_951_696),
    ],
)
def test_counted_parameters(
    model: str, frame: FrameShape, keys: dict[str, Any], parameters: int
) -> None:
    assert entry(model, frame, **keys).parameters == parameters


def test_multiply_adds_as_by_formula() -> None:
    """MoDeRNN and CMS-LSTM by the formula; PredRNN's 19 steps are OpenSTL's 116.0 G."""
    counted = {found.model: found.gmac_per_step for found in catalogue()}
    assert round(counted["modernn"], 3) == 2.043
    assert round(counted["cms-lstm"], 2) == 2.01
    assert round(19 * counted["predrnn"], 2) == 115.95
    assert round(entry("modernn", kernel=5).gmac_per_step, 2) == 2.58


def test_state_is_that_of_the_real_model() -> None:
    for found in catalogue():
        state = build_model(found.model, found.frame, {}).initial_state(2)
        assert {name: tuple(t.shape[1:]) for name, t in state.items()} == found.state
        assert sum(t.numel() * t.element_size() for t in state.values()) == 2 * found.state_bytes


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    assert markdown(catalogue()) in DOCS.read_text(), "stpl-deploy models --markdown"


def test_verb() -> None:
    if not app.registered_commands:
        verbs.register(app)
    plain = CliRunner().invoke(app, ["models"])
    assert plain.exit_code == 0, plain.exception
    assert "7,967,580" in plain.stdout
    assert "38,696,496 is exactly 3 x 12,898,832" in plain.stdout
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert [row["model"] for row in rows] == list(MODELS)
    modernn = next(row for row in rows if row["model"] == "modernn")
    assert modernn["parameters"] == 5_867_600
    assert modernn["keys"]["context_kernels"] == [3, 5, 7]
    assert modernn["state"]["layer0.h"] == [64, 16, 16]
