"""The first import of torchao, without the lines that it logs on a machine without a GPU."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_NOISE = {"torchao": "Failed to load", "torch.utils._pytree": "Calling register_constant() on Enum subclasses"}


@contextmanager
def _without(logger: str, text: str) -> Iterator[None]:
    def keep(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    target = logging.getLogger(logger)
    target.addFilter(keep)
    try:
        yield
    finally:
        target.removeFilter(keep)


def import_torchao() -> None:
    """Import torchao's export quantization, which also registers the quantize and dequantize operators.

    Takes seconds the first time. Only the known messages about missing GPU libraries and one of torch's own deprecations are held
    back; anything else that torchao logs is shown.
    """
    with _without("torchao", _NOISE["torchao"]), _without("torch.utils._pytree", _NOISE["torch.utils._pytree"]):
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  (loads torchao while its messages are held back)
