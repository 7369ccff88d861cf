"""Which protocol a terminal knows, by the names that it leaves in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Word = Literal["kitty", "iterm", "sixel"]

_BY_PROGRAM: dict[str, Word] = {
    "ghostty": "kitty", "iTerm.app": "iterm", "WezTerm": "iterm", "mintty": "iterm",
}  # fmt: skip
"""What TERM_PROGRAM says."""
_BY_TERM: dict[str, Word] = {
    "xterm-kitty": "kitty", "xterm-ghostty": "kitty", "wezterm": "iterm", "foot": "sixel",
    "foot-extra": "sixel", "mlterm": "sixel", "mlterm-256color": "sixel", "yaft-256color": "sixel",
    "contour": "sixel",
}  # fmt: skip
_BY_VARIABLE: dict[str, Word] = {
    "KITTY_WINDOW_ID": "kitty", "GHOSTTY_RESOURCES_DIR": "kitty", "WEZTERM_PANE": "iterm",
}  # fmt: skip
"""What a terminal sets for its own programs alone."""
_SILENT = ("", "dumb", "linux", "unknown")
"""TERM where there are no pictures, or nobody answers."""


def known_protocol(environment: Mapping[str, str]) -> Word | None:
    """The protocol that the terminal is known for; None where its names say nothing of it."""
    term = environment.get("TERM", "")
    if _is_within(environment, term) or term == "dumb":
        return None
    # TERM first: it travels with ssh, and is the innermost terminal's.
    if term in _BY_TERM:
        return _BY_TERM[term]
    program = environment.get("TERM_PROGRAM", "")
    if program in _BY_PROGRAM:
        return _BY_PROGRAM[program]
    if environment.get("LC_TERMINAL") == "iTerm2":  # this one travels with ssh, too
        return "iterm"
    if program:  # another one, which was perhaps started from one of those below
        return None
    return next((word for name, word in _BY_VARIABLE.items() if environment.get(name)), None)


def may_be_asked(environment: Mapping[str, str]) -> bool:
    """Whether a terminal is there that answers."""
    term = environment.get("TERM", "")
    return term not in _SILENT and not (term.startswith("screen") and "TMUX" not in environment)


def _is_within(environment: Mapping[str, str], term: str) -> bool:
    """Whether tmux or screen stands between, where the names are those of the terminal outside."""
    return "TMUX" in environment or "STY" in environment or term.startswith(("screen", "tmux"))
