"""Quantized networks in files: the captured graph (``.tq``), and how photographs become its input."""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tercel.sw.image_format import ImageFormat

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_MEMBER = "tercel_image_format.json"


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """A captured network; ``image_format`` is None where the file does not say."""

    program: "ExportedProgram"
    image_format: ImageFormat | None


def save_quantized_file(program: "ExportedProgram", path: Path, *, image_format: ImageFormat | None) -> None:
    """Write a ``.tq`` file; the format stands in the archive beside the graph, where readers that do not know it pass over it."""
    from tercel.sw.quantize import save_quantized

    save_quantized(program, path)
    if image_format is not None:
        with zipfile.ZipFile(path, "a") as archive:
            entry = zipfile.ZipInfo(f"{archive.namelist()[0].split('/')[0]}/extra/{_MEMBER}", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, json.dumps(asdict(image_format)))


def load_quantized_file(path: Path) -> QuantizedFile:
    """Read a ``.tq`` file, or a ``.pt2`` file that ``torch.export.save`` wrote after quantization by other means.

    :class:`~tercel.sw.quantize.QuantizedFileError` for a file that is missing, damaged, or neither.
    """
    from tercel.sw.quantize import load_quantized

    if path.suffix == ".pt2":
        return QuantizedFile(program=_load_exported(path), image_format=None)
    program = load_quantized(path)
    with zipfile.ZipFile(path) as archive:
        stored = next((name for name in archive.namelist() if name.endswith(f"/extra/{_MEMBER}")), None)
        values = None if stored is None else json.loads(archive.read(stored))
    image_format = None if values is None else ImageFormat(size=values["size"], mean=tuple(values["mean"]), std=tuple(values["std"]))
    return QuantizedFile(program=program, image_format=image_format)


def _load_exported(path: Path) -> "ExportedProgram":
    import torch

    from tercel.sw.quantize import QuantizedFileError
    from tercel.sw.quantize.torchao_import import import_torchao

    if path.is_file() and not zipfile.is_zipfile(path):  # torch would print its traceback
        raise QuantizedFileError(f"{path}: not an archive of torch.export, or cut short (write it with torch.export.save)")
    import_torchao()  # registers the quantize and dequantize ops
    try:
        with path.open("rb") as file:
            return torch.export.load(file)
    except OSError as error:
        raise QuantizedFileError(f"{path}: cannot be read: {error.strerror} (give the path of a .tq or .pt2 file)") from error
    except Exception as error:  # torch raises many types for what is no archive of its own
        reason = str(error).strip().split("\n")[0]
        raise QuantizedFileError(f"{path}: torch {torch.__version__} cannot read it: {reason} (write it with torch.export.save)") from error
