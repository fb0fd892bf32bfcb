"""RTL simulation: a compiled model of the accelerator with a memory around it."""
