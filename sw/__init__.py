"""Programs for the accelerator: assembly, layers, cycle model; later the quantizer and the compiler."""
