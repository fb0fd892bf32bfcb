"""The machines that people use by name."""

from tercel.hw.config import BASE, LARGE, NANO, SMALL, TINY, Config, named_config

__all__ = ["Config", "base", "large", "named_config", "nano", "small", "tiny"]

tiny, nano, small, base, large = TINY, NANO, SMALL, BASE, LARGE
