"""Words that this project avoids, and what it writes instead: plain English, the field's terms.

The glossary of `docs/architecture.md` has the terms that it uses. A test that reads prose cannot
judge it; this one only keeps words out that once made the code hard to read for newcomers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AREAS = ("src", "docs", "tests", "benchmarks", "scripts", "examples")
PAGES = ("README.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".sh"}

# Pattern, and what to write instead. Capitals count only where the pattern has some.
AVOID = {
    r"\bdeaf\b": "rejects, refuses",
    r"by a user's hand": "errors that the user can fix",
    r"\bmend(s|ed|ing)?\b": "fix, correct, repair",
    r"learn\w* to hear|\bhears? (its|the|a|no) ": "use (or ignore) the prompt",
    r"\bstray(s|ed|ing)?\b": "vary; augmentation",
    r"\bdesks?\b": "LabelEditor, editor",
    r"Keeper\b": "WorkspaceController",
    r"\bshel(f|ves)\b": "model library",
    r"\btold\b": "reported, message, notify_errors; known",
    r"\baside\(": "run_in_thread",
    r"\bbegun\b": "started; inputs_snapshot",
    r"\bworth\(": "selection_score",
    r"\brooms?\b": "package; space, memory",
    r"\ba row (an?|each)\b|\brow an object\b": "one row per object",
    r"\banew\b": "again",
    r"\bGate\b": "CancellationToken",
    r"\bgo(es|ne|ing)? on where\b": "resume",
    r"\bthrown away\b": "discarded",
    r"\bmade do with\b": "reduced to fit",
}

LEFT_IN_TESTS = 266
"""Uses in the tests' own names and texts that are not replaced yet; this number only falls."""


def files() -> Iterator[Path]:
    for area in AREAS:
        yield from (p for p in sorted((ROOT / area).rglob("*")) if p.suffix in SUFFIXES)
    yield from (ROOT / page for page in PAGES)


def found_in(text: str) -> Iterator[str]:
    """Each word to avoid, with its line and what to write instead."""
    for pattern, instead in AVOID.items():
        flags = 0 if re.search(r"[A-Z]", pattern.replace(r"\b", "")) else re.IGNORECASE
        for match in re.finditer(pattern, text, flags):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{line}: {match.group()!r}; write: {instead}"


def test_no_file_uses_words_to_avoid() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{word}"
        for path in files()
        if path != Path(__file__).resolve()
        for word in found_in(path.read_text(encoding="utf-8"))
    ]
    assert not [word for word in found if not word.startswith("tests")]
    assert len(found) <= LEFT_IN_TESTS


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("Keys that do not exist are rejected.", False),
        ("The settings are deaf to typos.", True),
        ("WorkspaceController", False),
        ("WorkspaceKeeper", True),
        ("an aggregate, a gate of a GRU", False),
        ("class Gate:", True),
        ("bedrooms and headroom", False),
        ("which room it belongs in", True),
        ("One row per object.", False),
        ("One row an object.", True),
        ("It recommends a mentor.", False),
        ("Undo mends it.", True),
    ],
)
def test_the_search_itself(text: str, is_found: bool) -> None:
    assert bool(list(found_in(text))) is is_found
