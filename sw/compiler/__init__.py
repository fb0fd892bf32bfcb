"""From an integer graph to a program: fused groups, strips, addresses, an order of instructions, tokens."""

from tercel.sw.compiler.fit import FitError
from tercel.sw.compiler.pipeline import compile_graph

__all__ = ["FitError", "compile_graph"]
