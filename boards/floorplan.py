"""Where multipliers and block RAMs go, decided before place and route.

A placer that spreads gates well finds poor places for the few large cells: they are moved to sites after everything has found its place
around them, and the wires are long wherever all sites are nearly used. What belongs together is known before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tercel.sim.toolchain import ToolError

_NUMBER = re.compile(r"\$\d+")
"""What synthesis appends to names to tell them apart."""


@dataclass(frozen=True, kw_only=True)
class Floorplan:
    """Places of some cells of a netlist.

    Attributes
    ----------
    cell_types
        The types of cells that have places.
    places
        The site, as place and route names it, of each cell. A cell's name may lack the modules that the machine is in, and the
        numbers that synthesis appends.
    """

    cell_types: frozenset[str]
    places: Mapping[str, str]

    def apply(self, top: dict[str, Any]) -> None:
        """Fix cells of the module ``top`` of yosys' netlist.

        Raises
        ------
        ToolError
            A cell of the plan is not in the netlist.
        """
        left = dict(self.places)
        for name, cell in top["cells"].items():
            if cell["type"] in self.cell_types and (site := _take(left, _NUMBER.sub("", name))) is not None:
                cell["attributes"]["BEL"] = site
        if left:
            raise ToolError(f"the floorplan has a place for {next(iter(left))}, which synthesis did not make; change the floorplan")


def _take(left: dict[str, str], name: str) -> str | None:
    """The site of the cell ``name``, taken out of ``left``."""
    while name not in left:
        _, dot, name = name.partition(".")
        if not dot:
            return None
    return left.pop(name)
