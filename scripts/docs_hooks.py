"""Hooks of mkdocs: the command line's reference from its parser, and the changelog as a page."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
MARKER = "<!-- every command -->"


def on_files(files: Files, config: Any) -> Files:
    """Add CHANGELOG.md, which lies at the root of the repository."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help texts of all commands in place of `MARKER`."""
    return markdown.replace(MARKER, "\n".join(help_texts())) if MARKER in markdown else markdown


def help_texts() -> Iterator[str]:
    """A heading and a block of text for each command and subcommand."""
    os.environ["COLUMNS"] = "92"
    from napari_coseg.cli.main import build_parser

    for parser in parsers_in(build_parser()):
        text = re.sub(r"\x1b\[[0-9;]*m", "", parser.format_help())  # colours, since Python 3.14
        level = "##" if parser.prog.count(" ") < 2 else "###"
        yield f"{level} {parser.prog}\n\n```text\n{text.rstrip()}\n```\n"


def parsers_in(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands below one, and of those below them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield below
                yield from parsers_in(below)
