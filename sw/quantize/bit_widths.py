"""Weight bits of each layer, from patterns on module names."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from tercel.sw.quantize.errors import QuantizeError

MIN_BITS, MAX_BITS = 2, 8
BitWidths = int | Mapping[str, int] | None


def check_bits(bits: BitWidths) -> dict[str, int]:
    """``bits`` as a mapping from patterns to widths; empty for None.

    Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for a width that is no whole number of 2..8.
    """
    patterns = {} if bits is None else dict(bits) if isinstance(bits, Mapping) else {"*": bits}
    for pattern, width in patterns.items():
        check_width(width, name=f"bits[{pattern!r}]" if isinstance(bits, Mapping) else "bits")
    return patterns


def check_width(width: object, *, name: str) -> None:
    """:class:`~tercel.sw.quantize.errors.QuantizeError` unless ``width`` is a whole number of 2..8."""
    if isinstance(width, bool) or not isinstance(width, int) or not MIN_BITS <= width <= MAX_BITS:
        raise QuantizeError(f"{name} must be a whole number in {MIN_BITS}..{MAX_BITS}, not {width!r} (2 bits are -1, 0, 1)")


def assign_bits(patterns: Mapping[str, int], layers: Sequence[str], *, default: int) -> list[int]:
    """The width of each layer, by name: that of the last pattern that matches (``*``, ``?`` and ``[...]``), or ``default``.

    Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for a pattern that matches no layer.
    """
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            shown = ", ".join(layers[:4]) + (", ..." if len(layers) > 4 else "")
            raise QuantizeError(f"bits[{pattern!r}] must match a layer with weights, but matches none of {len(layers)} ({shown})")
    widths = []
    for layer in layers:
        matching = [width for pattern, width in patterns.items() if fnmatchcase(layer, pattern)]
        widths.append(matching[-1] if matching else default)
    return widths
