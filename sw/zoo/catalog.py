"""Which networks there are, and how to build one by name."""

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tercel.sw.zoo.network import ImageNetwork

_BUILDERS = {
    "digits": "tercel.sw.zoo.digits_network:digits",
    "digits_rprelu": "tercel.sw.zoo.rprelu_resnet:digits_rprelu",
    "mobilenet_v1": "tercel.sw.zoo.mobilenet_v1:mobilenet_v1",
    "mobilenet_v2": "tercel.sw.zoo.mobilenet_v2:mobilenet_v2",
    "resnet18": "tercel.sw.zoo.resnet18:resnet18",
    "resnet20": "tercel.sw.zoo.resnet20:resnet20",
    "resnet20_rprelu": "tercel.sw.zoo.rprelu_resnet:resnet20_rprelu",
}

NAMES = tuple(_BUILDERS)
"""The names that :func:`build` knows."""

_SHIPPED = {
    ("digits", False): Path(__file__).parent / "digits.safetensors",
    ("digits", True): Path(__file__).parent / "digits_ternary.safetensors",
}


class ZooError(ValueError):
    """A network that does not exist or options it does not take. The message names the argument, the limit and the value."""


def build(name: str, **options: object) -> "ImageNetwork":
    """Make a network in evaluation mode, with random parameters (see :func:`~tercel.sw.zoo.weights.load_weights`).

    ``options`` are those of the builder: ``width``, ``size``, ``classes``, ``padding`` (``"symmetric"`` as in torchvision or
    ``"tensorflow"``: one-sided at stride 2) and ``normalization`` (``"imagenet"`` or ``"unit"``; it follows ``padding`` if not given)
    for the MobileNets, ``size`` and ``classes`` for the ResNets, none for ``digits``. The result's ``image_format`` says what input it
    wants. Raises :class:`ZooError` for an unknown name, an unknown option or a value outside an option's limits.
    """
    if name not in _BUILDERS:
        raise ZooError(f"network must be one of {', '.join(NAMES)}, not {name!r} (tercel.quantize in Python takes any other)")
    module, function = _BUILDERS[name].split(":")
    builder = getattr(importlib.import_module(module), function)
    accepted = inspect.signature(builder).parameters
    for option in options:
        if option not in accepted:
            raise ZooError(f"{name} takes {', '.join(accepted) or 'no options'}, not {option!r} (leave it out)")
    network: ImageNetwork = builder(**options)
    return network.eval()


def shipped_weights(name: str, *, ternary: bool = False) -> Path | None:
    """The file of trained weights that comes with the package for a network built with default options; None where there is none.

    ``ternary``: weights that were trained to be ternary, for the scheme of that name.
    """
    return _SHIPPED.get((name, ternary))
