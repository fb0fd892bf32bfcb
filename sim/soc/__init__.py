"""The whole system as it goes into a bitstream, in simulation, with the host's driver at the other end of the line."""
