"""The repository's pages, and what is in them: links, headings, fenced blocks."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(```+)(.*)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_NOT_IN_ANCHOR = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: ``info`` is what stands after its fence."""

    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def tracked() -> list[Path]:
    """All files that belong to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pages() -> list[Path]:
    """All Markdown files."""
    return [path for path in tracked() if path.suffix == ".md"]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found, open_at, fence, info, lines = [], 0, "", "", list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            fence, info, open_at, lines = match[1], match[2].strip(), number, []
        elif fence and line == fence:
            found.append(Block(page=page, line=open_at, info=info, text="\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    kept, fence = [], ""
    for line in page.read_text().splitlines():
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            kept.append(line)
    return "\n".join(kept)


def links(page: Path) -> list[str]:
    """Where the links of a page lead."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = [line.lstrip("#").strip() for line in prose(page).splitlines() if line.startswith("#")]
    return {_NOT_IN_ANCHOR.sub("", heading.lower()).replace(" ", "-") for heading in headings}
