"""Quantized networks in files: ``torch.export``'s archive with one more entry that says what it is."""

import importlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from tercel.sw.quantize.capture import first_line
from tercel.sw.quantize.errors import QuantizedFileError
from tercel.sw.quantize.torchao_import import import_torchao

FORMAT = "tercel quantized network"
VERSION = 1
_ENTRY = "tercel.json"


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a file as :func:`read_program` reads it; an existing one is replaced only when the new one is complete."""
    header = json.dumps({"format": FORMAT, "version": VERSION, "torch": torch.__version__})
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".pt2")
    os.close(handle)
    try:
        torch.export.save(program, partial, extra_files={_ENTRY: header})
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise QuantizedFileError(f"{path}: not a quantized network, or cut short: {first_line(error)} (make it again)") from error
    if damaged is not None:
        raise QuantizedFileError(f"{path}: damaged: checksum of {damaged} differs (copy or make the file again)")
    if not any(name.endswith("/" + _ENTRY) for name in names):
        raise QuantizedFileError(f"{path}: not a quantized network: an archive without {_ENTRY} (write it with save_quantized)")


def read_program(path: Path) -> ExportedProgram:
    """Read a quantized network; :class:`~tercel.sw.quantize.errors.QuantizedFileError` if the file is not one or is damaged."""
    if not path.is_file():
        raise QuantizedFileError(f"{path}: no such file")
    _check_archive(path)
    import_torchao()  # registers the operators, as does the next line
    importlib.import_module("tercel.sw.multi_threshold")
    extra = {_ENTRY: ""}
    try:
        with path.open("rb") as file:  # for a path with another ending than .pt2 torch logs a complaint
            program = torch.export.load(file, extra_files=extra)
        header = json.loads(extra[_ENTRY])
    except Exception as error:  # the archive is intact, so it is another torch's
        raise QuantizedFileError(f"{path}: torch {torch.__version__} cannot read it: {first_line(error)} (make it again)") from error
    found = header.get("format"), header.get("version")
    if found != (FORMAT, VERSION):
        raise QuantizedFileError(f"{path}: format must be {(FORMAT, VERSION)}, not {found} (make it again with this version)")
    return program
