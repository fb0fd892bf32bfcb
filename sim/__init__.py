"""Models that run programs: the golden model and the RTL in Verilator, behind one interface."""
