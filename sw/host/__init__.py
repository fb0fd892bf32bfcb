"""Operators at either end of a network that the host computes: a closed list, data that files can hold, in NumPy."""

from tercel.sw.host.ends import check_ends, enter, leave
from tercel.sw.host.host_graph import HostConstant, HostGraph, HostInput, HostOperator
from tercel.sw.host.operators import KINDS, HostError, HostType

__all__ = [
    "KINDS",
    "HostConstant",
    "HostError",
    "HostGraph",
    "HostInput",
    "HostOperator",
    "HostType",
    "check_ends",
    "enter",
    "leave",
]
