"""The reference of `/metrics`, asked of the page's own code."""

from __future__ import annotations

from docs.from_code.markdown import code, plain, table

_INTRODUCTION = """# Metrics

`serve` and `stream --page` answer `/metrics` in Prometheus' format. The alerts that most need:
[streaming](../streaming.md#for-programs).

"""


def page() -> str:
    """Every metric with its labels."""
    rows = [
        (code(name), kind, ", ".join(map(code, labels)), plain(text))
        for name, kind, labels, text in families()
    ]
    return _INTRODUCTION + table(("metric", "kind", "labels", ""), rows)


def families() -> list[tuple[str, str, tuple[str, ...], str]]:
    """(name as it is scraped, kind, labels, text) of each metric."""
    from stpl_core.codec import FrameCodec
    from stpl_runtime.page.hub import Hub
    from stpl_runtime.page.prometheus import metric_families
    from stpl_runtime.page.stream_view import Look
    from stpl_runtime.watching.skill import LiveSkill

    codec = FrameCodec(quantity="any", units="1", low=0.0, high=1.0)
    look = Look("any", "any", "1", 0.0, 1.0, context=1, horizon=1, shape=(1, 1, 1))
    endings = {"counter": "_total", "info": "_info"}
    return [
        (f"{one.name}{endings.get(one.type, '')}", one.type, tuple(getattr(one, "_labelnames", ())),
         one.documentation)
        for one in metric_families(Hub(look, [], LiveSkill(codec)), clients=0)
    ]  # fmt: skip
