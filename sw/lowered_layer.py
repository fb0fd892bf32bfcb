"""A layer between lowering and program."""

from dataclasses import dataclass

from tercel.sw.emitter import Emitter
from tercel.sw.program import LayerMark, Port


@dataclass(frozen=True, kw_only=True)
class LayerPorts:
    """Where a layer's tensors lie in external memory; ``residual`` is None for a layer without."""

    input: Port
    output: Port
    residual: Port | None = None


@dataclass(frozen=True, kw_only=True)
class LoweredLayer:
    """A layer's instructions with what they depend on; the memory image has its tensors."""

    emitter: Emitter
    kind: str
    engine: str
    macs: int
    digits: int

    def mark(self, *, first: int) -> LayerMark:
        """The layer's mark when its instructions begin at ``first``."""
        return LayerMark(
            name=self.kind,
            kind=self.kind,
            engine=self.engine,
            instructions=((first, first + len(self.emitter) - 1),),
            macs=self.macs,
            digits=self.digits,
        )
