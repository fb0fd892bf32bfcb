"""The registers at the outputs of the ECP5's block RAMs.

A block RAM (DP16KD, Lattice TN-02204) gives what it read 5.8 ns after the clock, or, through registers that it has at its outputs, 1.0 ns
after the clock that follows. Synthesis leaves them out. So where nothing but flip-flops takes what a port reads, these go into the port.

A port moves as a whole: all its bits must go to flip-flops, each to one, all of the same clock and clock enable, without a reset. The
clock enable becomes that of the registers (OCE). Both ports read together where words are 36 bits wide.
"""

from collections import defaultdict
from typing import Any

_BITS = 18
_WHOLE_WORD = 36
"""Data width at which one word is read through both ports, by the clock of port B."""

Cells = dict[str, dict[str, Any]]
Bit = int | str


def use_output_registers(top: dict[str, Any]) -> None:
    """Change the module ``top`` of yosys' netlist: block RAMs take the flip-flops behind them in."""
    cells: Cells = top["cells"]
    users: defaultdict[Bit, list[str]] = defaultdict(list)
    for port in top["ports"].values():
        for bit in port["bits"]:
            users[bit].append("")
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    users[bit].append(name)
    for cell in list(cells.values()):
        if cell["type"] != "DP16KD":
            continue
        whole = int(cell["parameters"]["DATA_WIDTH_B"], 2) == _WHOLE_WORD
        for sides in ("AB",) if whole else ("A", "B"):
            _take_in(cell, sides, cells, users)


def _take_in(memory: dict[str, Any], sides: str, cells: Cells, users: defaultdict[Bit, list[str]]) -> None:
    """The flip-flops behind the ports ``sides``, if they can be."""
    wires = memory["connections"]
    outputs = [port for side in sides for bit in range(_BITS) if users[wires[port := f"DO{side}{bit}"][0]]]
    behind: list[str] = []
    for port in outputs:
        (name, *others) = users[wires[port][0]]
        if others or not _takes(cells.get(name), wires[port]):
            return
        behind.append(name)
    controls = {(cells[name]["connections"]["CLK"][0], _enable(cells[name])) for name in behind}
    if {clock for clock, _ in controls} != {wires[f"CLK{sides[-1]}"][0]} or len(controls) != 1:
        return
    ((_, enable),) = controls
    for port, name in zip(outputs, behind, strict=True):
        wires[port] = cells.pop(name)["connections"]["Q"]
    for side in sides:
        memory["parameters"][f"REGMODE_{side}"] = "OUTREG"
        wires[f"OCE{side}"] = [enable]


def _takes(cell: dict[str, Any] | None, bits: list[Bit]) -> bool:
    """Whether ``cell`` is a flip-flop without a reset that takes ``bits`` in at the rising edge."""
    if cell is None or cell["type"] != "TRELLIS_FF":
        return False
    wires, parameters = cell["connections"], cell["parameters"]
    plain = wires.get("LSR", ["0"]) == ["0"] and parameters.get("REGSET", "RESET") == "RESET" and parameters.get("CLKMUX", "CLK") == "CLK"
    return bool(plain and wires.get("DI") == bits and _enable_mux(cell) in ("1", "CE"))


def _enable_mux(flip_flop: dict[str, Any]) -> str:
    # A text of digits only has a space behind it in this format.
    mux: str = flip_flop["parameters"].get("CEMUX", "1")
    return mux.strip()


def _enable(flip_flop: dict[str, Any]) -> Bit:
    if _enable_mux(flip_flop) == "1":
        return "1"
    enable: Bit = flip_flop["connections"]["CE"][0]
    return enable
