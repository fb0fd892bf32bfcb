"""Verilog of the accelerator."""

from amaranth.back import verilog as backend

from tercel.hw.config import Config
from tercel.hw.npu import Npu

TOP = "tercel_npu"
"""Name of the outermost module."""


def verilog(config: Config) -> str:
    """The accelerator as Verilog, without attributes that name source files. Its ports are those of :class:`Npu`, ``clk`` and ``rst``."""
    return backend.convert(Npu(config), name=TOP, emit_src=False, strip_internal_attrs=True)
