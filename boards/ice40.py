"""Lattice iCE40 UltraPlus."""

from tercel.boards.device import Device

DEVICES = (
    Device(
        name="up5k",
        part="iCE40UP5K-SG48",
        synthesis="synth_ice40 -abc9 -device u -dsp -spram",
        place_tool="nextpnr-ice40",
        place_arguments=("--up5k", "--package", "sg48", "--json", "{netlist}", "--pcf-allow-unconstrained"),
        weights={
            "LUT4": {"SB_LUT4": 1},
            "FF": {"SB_DFF*": 1},
            "DSP": {"SB_MAC16": 1},
            "block RAM": {"SB_RAM40_4K*": 1},
            "SPRAM": {"SB_SPRAM256KA": 1},
        },
        placed={
            "LUT4": ("ICESTORM_LC",),
            "DSP": ("ICESTORM_DSP",),
            "block RAM": ("ICESTORM_RAM",),
            "SPRAM": ("ICESTORM_SPRAM",),
        },
        available={"LUT4": 5280, "FF": 5280, "DSP": 8, "block RAM": 30, "SPRAM": 4},
        notes=("the routed LUT4 figure is logic cells, which also hold flip-flops and carries without a LUT",),
    ),
)
