"""Gowin GW2A."""

from tercel.boards.device import Device

DEVICES = (
    Device(
        name="gw2a-18",
        part="GW2AR-LV18QN88C8/I7",
        synthesis="synth_gowin -family gw2a",
        place_tool="nextpnr-gowin",
        place_arguments=("--device", "GW2AR-LV18QN88C8/I7", "--vopt", "family=GW2A-18C", "--json", "{netlist}", "--vopt", "cst=top.cst"),
        constraints="".join(f'IO_LOC "{name}" {pin};\n' for name, pin in {"clk": 4, "rst": 88, "i": 15, "load": 16, "o": 17}.items()),
        weights={
            "LUT4": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP4": 8},
            "FF": {"DFF*": 1},
            "DSP": {"MULT18X18": 1, "MULT9X9": 1, "MULTALU*": 1, "MULT36X36": 4},
            "block RAM": {"SDPB": 1, "SDPX9B": 1, "DPB": 1, "DPX9B": 1, "SP": 1, "SPX9": 1, "pROM*": 1},
        },
        placed={"LUT4": ("LUT4",), "FF": ("DFF",), "DSP": ("MULT18X18",), "block RAM": ("BSRAM",)},
        available={"LUT4": 20736, "FF": 15552, "DSP": 48, "block RAM": 46},
        notes=("an adder bit (ALU) counts for 1 LUT4, a 16x4 distributed memory for 8",),
    ),
)
