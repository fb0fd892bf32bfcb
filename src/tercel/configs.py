"""The machines that people use by name."""

from tercel.hw.config import BASE, LARGE, SMALL, TINY, Config, named_config

__all__ = ["Config", "base", "large", "named_config", "small", "tiny"]

tiny, small, base, large = TINY, SMALL, BASE, LARGE
