"""The host's side of the link to a machine on an FPGA."""
