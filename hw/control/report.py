"""What the parts of the sequencer say when nothing moves any more."""

from amaranth.hdl import unsigned
from amaranth.lib import data

REPORT_LAYOUT = data.StructLayout({"valid": unsigned(1), "fault": unsigned(1), "code": unsigned(4), "index": unsigned(16)})
"""A fault and its ``code`` (``fault`` 1), or an instruction that waits (``fault`` 0); nothing if not ``valid``."""
