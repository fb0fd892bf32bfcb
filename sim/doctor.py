"""Examines the tools this machine has, for ``tercel doctor``."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.table import Table

from tercel.sim.toolchain import SPECS, ToolError, ToolSpec, cache_folder, find_tool

MISSING_EXIT_CODE = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: a tool or a setting. ``cure`` is empty when ``ok``."""

    name: str
    purpose: str
    ok: bool
    needed: bool
    version: str
    source: str
    cure: str


def examine() -> list[Finding]:
    """Look for every tool, and for a cache folder that can be used. Takes about a second; nothing is built."""
    return [*(_examine_tool(spec) for spec in SPECS.values()), _examine_cache()]


def exit_code(findings: Iterable[Finding]) -> int:
    """0, or 5 when something that is needed is missing."""
    return MISSING_EXIT_CODE if any(finding.needed and not finding.ok for finding in findings) else 0


def findings_table(findings: Iterable[Finding]) -> Table:
    """The findings for a terminal."""
    table = Table("tool", "for", "state", "version", "where, or what to do")
    for finding in findings:
        state = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.needed else "[yellow]missing, optional[/]"
        table.add_row(finding.name, finding.purpose, state, finding.version, finding.source if finding.ok else finding.cure)
    return table


def findings_json(findings: Iterable[Finding]) -> dict[str, object]:
    """The findings as ``--json`` prints them."""
    rows = list(findings)
    return {"ok": exit_code(rows) == 0, "tools": [asdict(finding) for finding in rows]}


def _examine_tool(spec: ToolSpec) -> Finding:
    try:
        tool = find_tool(spec.name)
    except ToolError as error:
        return _finding(spec, ok=False, version="", source="", cure=str(error))
    return _finding(spec, ok=True, version=tool.version, source=tool.source, cure="")


def _finding(spec: ToolSpec, *, ok: bool, version: str, source: str, cure: str) -> Finding:
    return Finding(name=spec.name, purpose=spec.purpose, ok=ok, needed=spec.needed, version=version, source=source, cure=cure)


def _examine_cache() -> Finding:
    folder = cache_folder()
    cure = ""
    if any(character.isspace() for character in str(folder)):
        cure = f"make cannot build below {str(folder)!r}, which has a blank in its name: set TERCEL_CACHE to another folder"
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            cure = f"{folder} cannot be written ({os.strerror(error.errno or 0)}): set TERCEL_CACHE to another folder"
    return Finding(name="cache", purpose="RTL simulation", ok=not cure, needed=True, version="", source=str(folder), cure=cure)
