"""The rows of the table of trained networks: ways to few bits, and which of them are compared."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tercel.sw.training import TrainingScheme

Way = Literal["float", "data-free", "post-training", "training"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Parameters
    ----------
    label
        Name of the row.
    way
        How the weights get their codes.
    scheme
        Of ``tercel.quantize`` or ``tercel.prepare``; empty for the float network.
    bits, activation_bits
        Of inner layers. The first and the last layer have 8, and depthwise layers, whose engine has no other weights.
    like
        The method whose learned widths, on average, this one has in all layers; empty for none.
    against
        Label of the row that this one is compared with; empty for the float network.
    """

    label: str
    way: Way
    scheme: str = ""
    bits: int = 8
    activation_bits: int = 8
    like: str = ""
    against: str = ""

    def training_scheme(self) -> "TrainingScheme":
        """The scheme with this row's width of activations."""
        from tercel.sw.training import TRAINING_SCHEMES

        return replace(TRAINING_SCHEMES[self.scheme], activation_bits=self.activation_bits)


_TERNARY = {"ternary_naive": "naive ternary", "tquant": "TQuant", "mquant": "MQuant"}
_WAYS: tuple[Way, ...] = ("data-free", "post-training", "training")
_LEARNED = "CPQ + DropBits, learned widths"
_START = 4


def _ternary() -> list[Method]:
    return [
        Method(
            label=f"{name}, {way}",
            way=way,
            scheme=scheme,
            bits=2,
            against="" if scheme == "ternary_naive" else f"{_TERNARY['ternary_naive']}, {way}",
        )
        for way in _WAYS
        for scheme, name in _TERNARY.items()
    ]


def _thresholds(bits: int) -> list[Method]:
    uniform = Method(label=f"uniform W{bits}A{bits}", way="training", scheme="uniform", bits=bits, activation_bits=bits)
    return [uniform, replace(uniform, label=f"N2UQ W{bits}A{bits}", scheme="n2uq", against=uniform.label)]


def _categories(bits: int) -> list[Method]:
    plain = Method(label=f"straight-through W{bits}A8", way="training", scheme="identity_ste", bits=bits)
    return [plain, replace(plain, label=f"CPQ W{bits}A8", scheme="cpq", against=plain.label)]


_FIXED = Method(label="CPQ, fixed widths, as many bits", way="training", scheme="cpq", bits=_START, like=_LEARNED)

METHODS = {
    method.label: method
    for method in (
        Method(label="float", way="float"),
        *_ternary(),
        *(method for bits in (2, 3, 4) for method in _thresholds(bits)),
        *(method for bits in (3, 4) for method in _categories(bits)),
        _FIXED,
        Method(label=_LEARNED, way="training", scheme="cpq_dropbits", bits=_START, against=_FIXED.label),
    )
}
