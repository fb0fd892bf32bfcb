"""FPGA platforms and the flow from a config to area, clock and bitstream."""
