"""Sizes as people type them on the command line."""

from dataclasses import replace

from tercel.hw.config import Config, named_config


class UsageError(ValueError):
    """A command line that cannot be understood. The message names the option, the form and what was given."""


def parse_shape(text: str) -> tuple[int, int, int]:
    """``HxWxC``, or ``C`` for one pixel."""
    sides = _numbers("input", text, separator="x", form="HxWxC, or C for one pixel")
    if len(sides) == 1:
        return 1, 1, sides[0]
    if len(sides) != 3:
        raise UsageError(f"input must be HxWxC, or C for one pixel, not {text!r} (for example 56x56x24)")
    return sides[0], sides[1], sides[2]


def parse_pair(name: str, text: str) -> tuple[int, int]:
    """``N`` for both, or ``HxW``."""
    sides = _numbers(name, text, separator="x", form="one number or HxW")
    if len(sides) > 2:
        raise UsageError(f"{name} must be one number or HxW, not {text!r} (for example 3 or 3x5)")
    return sides[0], sides[-1]


def parse_padding(text: str, *, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """``N`` on all sides, ``top,left,bottom,right``, or ``same``: half the kernel, rounded down at the top and left."""
    if text == "same":
        height, width = ((side - 1) * step for side, step in zip(kernel, dilation, strict=True))
        return height // 2, width // 2, height - height // 2, width - width // 2
    sides = _numbers("padding", text, separator=",", form="one number, top,left,bottom,right or same")
    if len(sides) == 1:
        return sides[0], sides[0], sides[0], sides[0]
    if len(sides) != 4:
        raise UsageError(f"padding must be one number, top,left,bottom,right or same, not {text!r} (for example 0,0,1,1)")
    return sides[0], sides[1], sides[2], sides[3]


def parse_config(name: str, memory_bytes: int | None) -> Config:
    """A named config, with another memory width if one is given; :class:`~tercel.hw.config.ConfigError` if it cannot be."""
    config = named_config(name)
    return config if memory_bytes is None else replace(config, memory_width=memory_bytes)


def _numbers(name: str, text: str, *, separator: str, form: str) -> list[int]:
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise UsageError(f"{name} must be {form}, not {text!r} (whole numbers)") from None
