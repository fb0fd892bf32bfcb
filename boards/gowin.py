"""Gowin GW2A."""

from tercel.boards.device import Device
from tercel.boards.through_luts import add_through_luts

# A flip-flop takes its input from the LUT or adder cell in front of it, so one that follows another flip-flop or a memory takes that LUT
# too, and place and route puts none behind adder cells (ALU) and wide multiplexers (MUX2_LUT5..8). With these ``tiny`` takes 96 % of all
# places, many in pairs and chains, and place and route did not end; with everything in LUT4, mapped for area, 90 % and nothing that is
# tied to others. Carries through LUTs are slower, but fast enough. Two of a tile's eight places have no flip-flop: LUTs by themselves
# are to take these, so each flip-flop gets its LUT beforehand, and the pairs are put down first.
_SYNTHESIS = "scratchpad -copy abc9.script.default.area abc9.script; synth_gowin -family gw2a -noalu -nowidelut"

DEVICES = (
    Device(
        name="gw2a-18",
        part="GW2AR-LV18QN88C8/I7",
        synthesis=_SYNTHESIS,
        edits=(add_through_luts,),
        place_tool="nextpnr-gowin",
        place_arguments=("--device", "GW2AR-LV18QN88C8/I7", "--vopt", "family=GW2A-18C", "--json", "{netlist}", "--vopt", "cst=top.cst"),
        constraints="".join(f'IO_LOC "{name}" {pin};\n' for name, pin in {"clk": 4, "rst": 88, "i": 15, "load": 16, "o": 17}.items()),
        weights={
            "LUT4": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "RAM16SDP4": 8},
            "FF": {"DFF*": 1},
            "DSP": {"MULT18X18": 1, "MULT9X9": 1, "MULTALU*": 1, "MULT36X36": 4},
            "block RAM": {"SDPB": 1, "SDPX9B": 1, "DPB": 1, "DPX9B": 1, "SP": 1, "SPX9": 1, "pROM*": 1},
        },
        placed={"LUT4": ("LUT4",), "FF": ("DFF",), "DSP": ("MULT18X18",), "block RAM": ("BSRAM",)},
        available={"LUT4": 20736, "FF": 15552, "DSP": 48, "block RAM": 46},
        notes=("a 16x4 distributed memory counts for 8 LUT4; after place and route also flip-flops that no LUT feeds",),
    ),
)
