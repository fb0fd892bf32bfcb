"""Tercel: an FPGA/NPU hardware-software co-design package."""

__version__ = "0.1.0"
