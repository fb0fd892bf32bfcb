"""The golden model: the definition of the instruction set, executed instruction by instruction on NumPy arrays."""

from tercel.sim.golden.machine import GoldenResult, run_golden
from tercel.sim.golden.state import MachineState, Scratchpad

__all__ = ["GoldenResult", "MachineState", "Scratchpad", "run_golden"]
