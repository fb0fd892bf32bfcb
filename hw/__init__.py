"""The accelerator as Amaranth components, its generator parameters and its instruction set."""
