"""The weight scale schemes by name."""

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.scheme import PerChannel, PerLayer, Scheme, Shift
from tercel.sw.quantize.ternary import Magnitude, Mode, Operator
from tercel.sw.quantize.ternary_scheme import Granularity, TernaryScheme

_OPERATORS: tuple[tuple[str, Operator, Mode, str], ...] = (
    ("ternary_naive", "naive", "gauss", "weights -1, 0, 1 by rounding to the nearest of the largest weight and 0"),
    ("tquant", "tquant", "gauss", "weights -1, 0, 1 in three bins of one width: least largest error"),
    ("mquant", "mquant", "gauss", "weights -1, 0, 1 in three bins of one share of a normal distribution"),
    ("mquant_tertiles", "mquant", "empirical", "weights -1, 0, 1 in three bins of one share of the weights"),
)
_SCALES: tuple[tuple[str, Granularity, Magnitude, str], ...] = (
    ("", "shift", "round", "a shift per channel"),
    ("_fitted", "shift", "least_squares", "a shift per channel, scales of least squared error"),
    ("_per_layer", "layer", "round", "one scale per layer"),
    ("_per_channel", "channel", "round", "a free scale per channel"),
)

_ALL: tuple[Scheme, ...] = (
    PerLayer(name="per_layer", summary="one scale per layer"),
    Shift(name="shift8", rule="floor", summary="one scale per layer and a 4-bit shift per channel: the largest that does not clip"),
    Shift(name="shift_round", rule="round", summary="like shift8, with the nearest power of two instead of the next lower one"),
    Shift(name="shift_signed", rule="signed", summary="like shift8, with shifts of -8..7 around the median channel"),
    Shift(name="shift_search", rule="search", fraction=3, summary="like shift8, with the scale and shifts of least squared error"),
    PerChannel(name="per_channel", summary="a free scale per channel; needs a multiplier per channel in the machine"),
    Shift(name="ternary", rule="search", fraction=3, bits=2, summary="weights -1, 0, 1 with the scale and shifts of least squared error"),
    *(
        TernaryScheme(
            name=name + ending,
            operator=operator,
            mode=mode,
            granularity=granularity,
            magnitude=magnitude,
            summary=f"{summary}; {scales}",
        )
        for name, operator, mode, summary in _OPERATORS
        for ending, granularity, magnitude, scales in _SCALES
    ),
)

SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _ALL}


def find_scheme(scheme: str | Scheme) -> Scheme:
    """A scheme by name; a :class:`~tercel.sw.quantize.scheme.Scheme` of your own passes through."""
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise QuantizeError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r} (or a Scheme of your own)")
    return SCHEMES[scheme]
