"""What the area flow knows of an FPGA: how its tools are called, what its cells count for and what it has."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercel.boards.floorplan import Floorplan

Cells = Mapping[str, int]
"""Number of cells by type, after synthesis."""

_HIDE_ELEMENTS = "rename -hide */w:*[[]*"
"""An element of an array is also a wire named ``array[3]``. ABC9 takes that and bit 3 of ``array`` for one, and yosys then fails."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One part.

    Attributes
    ----------
    synthesis
        Yosys commands, the last one ``synth_*`` without ``-top``.
    flip_flops
        Yosys commands between its coarse part and ``map_ffs``, where it has one; empty otherwise.
    edits
        What changes the module ``top`` of yosys' netlist before place and route; call :meth:`prepare_netlist`.
    floorplans
        For whole machines, by the name of their config.
    place_tool
        Name of the place and route tool in :mod:`tercel.sim.toolchain`.
    place_arguments
        Its arguments; ``{netlist}`` stands for the file.
    place_settings
        Its settings that are no arguments, whole numbers; they travel in the netlist.
    constraints
        Text of the file ``top.cst`` that place and route reads; empty where pins may stay unplaced.
    weights
        For each resource, what a cell of a type counts for. A type may end in ``*``. Cell types that are in no resource are
        free (multiplexers inside a slice, constants).
    placed
        For each resource, the names under which place and route reports it.
    available
        What the part has of each resource.
    platform
        What components are elaborated for; some use special cells of a family they know.
    """

    name: str
    part: str
    synthesis: str
    place_tool: str
    place_arguments: tuple[str, ...]
    weights: Mapping[str, Mapping[str, int]]
    placed: Mapping[str, tuple[str, ...]]
    available: Mapping[str, int]
    constraints: str = ""
    platform: object = None
    flip_flops: str = ""
    edits: tuple[Callable[[dict[str, Any]], None], ...] = ()
    place_settings: Mapping[str, int] = field(default_factory=dict)
    floorplans: Mapping[str, Floorplan] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    @property
    def synthesis_script(self) -> str:
        """Yosys commands that make the cells of the module ``top``, read before, and write them to ``top.json``."""
        command = f"{self.synthesis} -top top"
        if self.flip_flops:
            return f"{_HIDE_ELEMENTS}; {command} -run begin:map_ffs; {self.flip_flops}; {command} -run map_ffs: -json top.json"
        return f"{_HIDE_ELEMENTS}; {command} -json top.json"

    def prepare_netlist(self, path: Path, *, machine: str | None = None) -> None:
        """Make yosys' netlist ready for place and route. ``machine`` is the name of its config if it is a whole one.

        Raises
        ------
        ToolError
            The machine's floorplan and the netlist disagree.
        """
        netlist = json.loads(path.read_text())
        top = netlist["modules"]["top"]
        for edit in self.edits:
            edit(top)
        if machine in self.floorplans:
            self.floorplans[machine].apply(top)
        # A number in this format is its 32 binary digits.
        top["settings"] = {name: f"{value:032b}" for name, value in self.place_settings.items()}
        path.write_text(json.dumps(netlist))

    def count(self, cells: Cells) -> dict[str, int]:
        """Resources that ``cells`` need."""
        return {
            resource: sum(_weight(weights, kind) * number for kind, number in cells.items()) for resource, weights in self.weights.items()
        }


def _weight(weights: Mapping[str, int], kind: str) -> int:
    if kind in weights:
        return weights[kind]
    return next((weight for pattern, weight in weights.items() if pattern.endswith("*") and kind.startswith(pattern[:-1])), 0)
