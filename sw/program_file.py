"""The file format of programs, ``.tnpu``.

A ``.tnpu`` file is a zip archive of ``manifest.json``, ``instructions.bin`` (80 bytes each), ``memory.bin`` (all segments after
one another) and, where the program was compiled from a network, ``graph.bin``. Equal programs make equal files. A network with operators
on the host is of format version 3 and lists them in the manifest; any other is of version 2, so that a reader that knows nothing of such
operators refuses just the files that it would run without them.
"""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from tercel.hw.config import Config, ConfigError
from tercel.hw.isa import INSTRUCTION_BYTES, ISA_VERSION
from tercel.sw.image_format import ImageFormat
from tercel.sw.program import LayerMark, Port, Program, ProgramError, Segment, check_config, instruction_bytes

if TYPE_CHECKING:
    from tercel.sw.graph.integer_graph import IntegerGraph
    from tercel.sw.host import HostGraph

FORMAT = "tercel program"
FORMAT_VERSION = 2
HOST_FORMAT_VERSION = 3
"""With operators on the host."""

_MEMBERS = ("manifest.json", "instructions.bin", "memory.bin")
_GRAPH_MEMBER = "graph.bin"
_REGIONS = ("program_base", "read_base", "read_end", "write_base", "write_end", "memory_bytes")


def program_to_bytes(program: Program) -> bytes:
    """The content of the file."""
    instructions = instruction_bytes(program.words)
    memory = b"".join(segment.data for segment in program.segments)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": HOST_FORMAT_VERSION if program.on_host else FORMAT_VERSION,
        "isa_version": ISA_VERSION,
        "config": asdict(program.config),
        "config_hash": f"{program.config.hash:08x}",
        "instructions": len(program.words),
        "instructions_sha256": hashlib.sha256(instructions).hexdigest(),
        "memory_sha256": hashlib.sha256(memory).hexdigest(),
        "segments": [{"name": s.name, "address": s.address, "bytes": len(s.data)} for s in program.segments],
        **{region: getattr(program, region) for region in _REGIONS},
        "inputs": [asdict(port) for port in program.inputs],
        "outputs": [asdict(port) for port in program.outputs],
        "marks": [asdict(mark) for mark in program.marks],
        "image_format": None if program.image_format is None else asdict(program.image_format),
    }
    if program.on_host:
        from tercel.sw.host.serialize import ends_to_plain

        manifest["host"] = ends_to_plain(program.host_head, program.host_tail)
    members = {"instructions.bin": instructions, "memory.bin": memory}
    if program.graph is not None:
        from tercel.sw.graph.serialize import graph_to_bytes

        members[_GRAPH_MEMBER] = graph_to_bytes(program.graph)
        manifest["graph_sha256"] = hashlib.sha256(members[_GRAPH_MEMBER]).hexdigest()
    contents = {"manifest.json": json.dumps(manifest, indent=1, sort_keys=True).encode(), **members}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, compresslevel=6)
    return buffer.getvalue()


def program_from_bytes(data: bytes, *, config: Config | None = None) -> Program:
    """The program; :class:`ProgramError` if the file is damaged, of another version or not for ``config``."""
    manifest, instructions, memory, graph = _open(data)
    try:
        return _from_manifest(manifest, instructions, memory, graph, config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ProgramError(
            f"manifest.json must describe a program, but {error} is missing or of another type (compile it again)"
        ) from error


def _from_manifest(
    manifest: dict[str, Any], instructions: bytes, memory: bytes, graph: bytes | None, config: Config | None
) -> Program:
    # Files of version 1 do not tell it.
    _expect("isa_version", ISA_VERSION, manifest.get("isa_version", 1))
    _expect("instructions_sha256", manifest["instructions_sha256"], hashlib.sha256(instructions).hexdigest())
    _expect("memory_sha256", manifest["memory_sha256"], hashlib.sha256(memory).hexdigest())
    _expect("instructions", manifest["instructions"] * INSTRUCTION_BYTES, len(instructions), unit=" bytes")
    stored = manifest["config"]
    _expect("config fields", sorted(field.name for field in fields(Config)), sorted(stored))
    try:
        own = Config(**stored)
    except ConfigError as error:
        raise ProgramError(f"config is not valid: {error}") from error
    _expect("config_hash", f"{own.hash:08x}", manifest["config_hash"])
    if config is not None:
        check_config(own, config)
    segments = []
    position = 0
    for entry in manifest["segments"]:
        segments.append(Segment(entry["name"], entry["address"], memory[position : position + entry["bytes"]]))
        position += entry["bytes"]
    _expect("segments", position, len(memory), unit=" bytes")
    for segment in segments:
        if not 0 <= segment.address <= manifest["memory_bytes"] - len(segment.data):
            raise ProgramError(f"segment {segment.name} must lie in 0..{manifest['memory_bytes']}, not at {segment.address}")
    head, tail = _host(manifest)
    return Program(
        config=own,
        words=tuple(
            int.from_bytes(instructions[start : start + INSTRUCTION_BYTES], "little")
            for start in range(0, len(instructions), INSTRUCTION_BYTES)
        ),
        segments=tuple(segments),
        **{region: int(manifest[region]) for region in _REGIONS},
        inputs=tuple(_port(port) for port in manifest["inputs"]),
        outputs=tuple(_port(port) for port in manifest["outputs"]),
        marks=tuple(_mark(mark) for mark in manifest["marks"]),
        graph=_graph(graph, manifest),
        image_format=_image_format(manifest["image_format"]),
        host_head=head,
        host_tail=tail,
    )


def _port(values: dict[str, Any]) -> Port:
    return Port(**{**values, "shape": tuple(values["shape"])})


def _mark(values: dict[str, Any]) -> LayerMark:
    return LayerMark(**{**values, "instructions": tuple((first, last) for first, last in values["instructions"])})


def _graph(data: bytes | None, manifest: dict[str, Any]) -> "IntegerGraph | None":
    _expect("graph_sha256", manifest.get("graph_sha256"), None if data is None else hashlib.sha256(data).hexdigest())
    if data is None:
        return None
    from tercel.sw.graph.serialize import graph_from_bytes

    return graph_from_bytes(data)


def _host(manifest: dict[str, Any]) -> "tuple[HostGraph | None, HostGraph | None]":
    if manifest["format_version"] != HOST_FORMAT_VERSION:
        return None, None
    from tercel.sw.host.serialize import ends_from_plain

    return ends_from_plain(manifest["host"])


def _image_format(values: dict[str, Any] | None) -> ImageFormat | None:
    if values is None:
        return None
    try:
        return ImageFormat(size=values["size"], mean=tuple(values["mean"]), std=tuple(values["std"]))
    except ValueError as error:
        raise ProgramError(f"image_format is not valid: {error}") from error


def _expect(name: str, expected: object, found: object, *, unit: str = "") -> None:
    if expected != found:
        way_out = "use the release that wrote it" if name.startswith(("format", "isa")) else "the file is damaged"
        raise ProgramError(f"{name} must be {expected}{unit}, not {found}{unit} ({way_out})")


def _open(data: bytes) -> tuple[dict[str, Any], bytes, bytes, bytes | None]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = tuple(archive.namelist())
            parsed: Any = json.loads(archive.read(_MEMBERS[0])) if _MEMBERS[0] in found else None
            _check_format(parsed, found)
            instructions, memory = (archive.read(name) for name in _MEMBERS[1:])
            graph = archive.read(_GRAPH_MEMBER) if _GRAPH_MEMBER in found else None
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,  # a compression that zipfile does not know
        RuntimeError,  # an encrypted member
        zlib.error,
    ) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError(f"archive must be a whole zip file, but: {error} (the file is truncated or damaged)") from error
    return parsed, instructions, memory, graph


def _check_format(manifest: Any, members: tuple[str, ...]) -> None:
    """The version comes before the members, so that files of later releases are called that, whatever they hold."""
    if _MEMBERS[0] in members:
        if not isinstance(manifest, dict):
            raise ProgramError(f"manifest.json must hold an object, not {type(manifest).__name__} (the file is damaged)")
        _expect("format", FORMAT, manifest.get("format"))
        if manifest.get("format_version") not in (FORMAT_VERSION, HOST_FORMAT_VERSION):
            _expect("format_version", f"{FORMAT_VERSION} or {HOST_FORMAT_VERSION}", manifest.get("format_version"))
    if members not in (_MEMBERS, (*_MEMBERS, _GRAPH_MEMBER)):
        raise ProgramError(f"members must be {', '.join(_MEMBERS)}, not {', '.join(members)} (this is no program file)")
