"""Tercel: an FPGA/NPU hardware-software co-design package.

>>> quantized = tercel.quantize(model, calibration=batches, scheme="shift8")
>>> network = tercel.compile(quantized, config=tercel.configs.base)
>>> result = network.run(images, on="golden")
>>> result.outputs, result.cycles, result.layers

Nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercel import configs
    from tercel.hw.config import Config
    from tercel.sim.api import compare_network as compare
    from tercel.sim.api import compile_network as compile
    from tercel.sim.api import load_network as load
    from tercel.sim.network import CompiledNetwork, NetworkResult
    from tercel.sw.importer import explain
    from tercel.sw.quantize import quantize
    from tercel.sw.search import search
    from tercel.sw.training import convert, prepare

__version__ = "0.1.0"

__all__ = [
    "CompiledNetwork",
    "Config",
    "NetworkResult",
    "compare",
    "compile",
    "configs",
    "convert",
    "explain",
    "load",
    "prepare",
    "quantize",
    "search",
]

_PLACES = {
    "CompiledNetwork": "tercel.sim.network:CompiledNetwork",
    "Config": "tercel.hw.config:Config",
    "NetworkResult": "tercel.sim.network:NetworkResult",
    "compare": "tercel.sim.api:compare_network",
    "compile": "tercel.sim.api:compile_network",
    "configs": "tercel.configs",
    "convert": "tercel.sw.training:convert",
    "explain": "tercel.sw.importer:explain",
    "load": "tercel.sim.api:load_network",
    "prepare": "tercel.sw.training:prepare",
    "quantize": "tercel.sw.quantize:quantize",
    "search": "tercel.sw.search:search",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tercel' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(module)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
