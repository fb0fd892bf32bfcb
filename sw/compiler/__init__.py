"""From an integer graph to a program: fused groups, strips, addresses, an order of instructions, tokens."""

from tercel.sw.compiler.compile import compile_graph
from tercel.sw.compiler.fit import FitError

__all__ = ["FitError", "compile_graph"]
