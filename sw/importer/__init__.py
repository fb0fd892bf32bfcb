"""Captured PyTorch networks with quantize and dequantize operators become integer graphs."""

from tercel.sw.importer.importer import Imported, explain, import_exported
from tercel.sw.importer.report import OperatorReport, UnsupportedError

__all__ = ["Imported", "OperatorReport", "UnsupportedError", "explain", "import_exported"]
