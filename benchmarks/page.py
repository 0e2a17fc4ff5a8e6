"""The pages that the benchmarks write, section by section."""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between the comments `<!-- name -->` and `<!-- end of name -->`."""
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.read_text("utf-8").partition(first)
    _, found, after = rest.partition(last)
    if not found:
        raise ValueError(f"{page}: needs the lines {first.strip()} and {last}")
    page.write_text(f"{before}{first}{text.strip()}\n{last}{after}", "utf-8")


def table(header: str, rows: Iterable[str]) -> str:
    """Return a Markdown table; header and rows have their cells between ` | `."""
    rule = "---:|" * len(header.split(" | "))
    return "\n".join([f"| {header} |", f"|{rule}", *(f"| {row} |" for row in rows)])


def machine() -> str:
    """Return what the operating system calls the processor, and its number of cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
