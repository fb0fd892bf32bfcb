"""Lattice ECP5 parts, speed grade 6."""

from tercel.boards.carry_chains import shorten_carry_chains
from tercel.boards.carry_constants import tie_carry_constants
from tercel.boards.device import Device
from tercel.boards.ecp5_floorplan import BASE_FLOORPLAN
from tercel.boards.floorplan import Floorplan
from tercel.boards.output_registers import use_output_registers
from tercel.hw.mux_add import Ecp5

_WEIGHTS = {
    "LUT4": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
    "FF": {"TRELLIS_FF": 1},
    "DSP": {"MULT18X18D": 1, "MULT9X9D": 1},
    "block RAM": {"DP16KD": 1, "PDPW16KD": 1},
}
_PLACED = {"LUT4": ("TRELLIS_COMB",), "FF": ("TRELLIS_FF",), "DSP": ("MULT18X18D",), "block RAM": ("DP16KD",)}

_WITHOUT_RESETS = (
    "opt_clean; dfflegalize -mince 6 -cell $_DFF_?_ 01 -cell $_DFF_?P?_ r -cell $_DFFE_??_ 01 -cell $_DFFE_?P??_ r -cell $_DLATCH_?_ x"
)
"""Flip-flops without synchronous resets, and without enables of a few.

The eight flip-flops of a tile share one reset, those without included: sets of flip-flops with a reset, which yosys finds wherever a
value is cleared on a condition, fill a part with tiles that nobody else can use, until placement finds none.
"""


def _part(
    *,
    name: str,
    part: str,
    option: str,
    available: dict[str, int],
    flip_flops: str,
    placer: str,
    router: str,
    place_settings: dict[str, int],
    floorplans: dict[str, Floorplan],
) -> Device:
    return Device(
        name=name,
        part=part,
        synthesis="synth_ecp5 -abc9",
        flip_flops=flip_flops,
        edits=(tie_carry_constants, shorten_carry_chains, use_output_registers),
        place_tool="nextpnr-ecp5",
        place_arguments=(
            *(option, "--package", "CABGA381", "--speed", "6", "--json", "{netlist}", "--lpf-allow-unconstrained"),
            *("--placer", placer, "--router", router),
        ),
        place_settings=place_settings,
        weights=_WEIGHTS,
        placed=_PLACED,
        available=available,
        platform=Ecp5(),
        floorplans=floorplans,
        notes=("a carry cell CCU2C counts for 2 LUT4; a 16x4 distributed memory for 6: 4, and 2 that its write port takes",),
    )


# ``base`` fills half of the 85F's flip-flops. On the 25F ``small`` takes 85 %, and with three resets of 500 each there was no placement. On
# the 85F the static placer leaves a ninth less wire; it found no place for ``small`` on the 25F. On the 25F router2 went round in
# circles; on the 85F router1 did not come to an end.
DEVICES = (
    _part(
        name="ecp5-85f",
        part="LFE5U-85F-6",
        option="--85k",
        available={"LUT4": 83640, "FF": 83640, "DSP": 156, "block RAM": 208},
        flip_flops="",
        placer="static",
        router="router2",
        # Wires may leave the rectangle around their ends by so many tiles, not 3: the longest wires of the part lead over 6.
        place_settings={"router2/bbMargin/x": 8, "router2/bbMargin/y": 8},
        floorplans={"base": BASE_FLOORPLAN},
    ),
    _part(
        name="ecp5-25f",
        part="LFE5U-25F-6",
        option="--25k",
        available={"LUT4": 24288, "FF": 24288, "DSP": 28, "block RAM": 56},
        flip_flops=_WITHOUT_RESETS,
        placer="heap",
        router="router1",
        place_settings={},
        floorplans={},
    ),
)
