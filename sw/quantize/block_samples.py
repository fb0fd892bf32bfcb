"""Mini-batches for learning on one block: what goes in, and what the float network makes of it."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.block_run import Values, run_block
from tercel.sw.quantize.blocks import Block

_IMAGES = 32
_PIXELS = 3136
"""Output pixels of a mini-batch, at most: 64 images of 7 by 7, 16 of 14 by 14. More of them make a step slower, not better."""

_SIDE = 14
"""Images with more pixels on a side than this are seen through windows of this size, where the block's operators allow it."""


class BlockSamples:
    """Draws mini-batches for a block.

    A window is cut at the same place out of all inputs. Float network and quantized one both see zeros around it, as they do around the
    image.

    Parameters
    ----------
    graph_module, block
        A calibrated graph and a block of it.
    real, quantized
        The block's inputs in the float network and in the quantized one, and its outputs in the float network.
    seed
        Of the order of the images and the places of the windows.
    """

    def __init__(self, graph_module: GraphModule, block: Block, *, real: Values, quantized: Values, seed: int) -> None:
        self._graph_module, self._block = graph_module, block
        self._real = {node: real[node] for node in block.inputs}
        self._quantized = {node: quantized[node] for node in block.inputs}
        self._targets = [real[node] for node in block.outputs]
        self._generator = torch.Generator().manual_seed(seed)
        first = self._targets[0]
        self._rows, self._columns = (first.shape[3], first.shape[4]) if first.dim() == 5 else (1, 1)
        self._strides = self._window_strides()
        sides = (self._rows, self._columns) if self._strides is None else (min(self._rows, _SIDE), min(self._columns, _SIDE))
        self._height, self._width = sides
        self.pixels = self._height * self._width
        self.images = max(1, min(_IMAGES, len(first), _PIXELS // self.pixels))

    def _window_strides(self) -> tuple[int, int] | None:
        """Input pixels per output pixel, None where no windows can be cut or none are needed."""
        if not self._block.local or self._rows * self._columns <= _SIDE**2:
            return None
        rows, columns = next(iter(self._real.values())).shape[3:]
        strides = rows // self._rows, columns // self._columns
        return strides if (strides[0] * self._rows, strides[1] * self._columns) == (rows, columns) else None

    def draw(self) -> tuple[dict[Node, Tensor], list[Tensor]]:
        """The quantized network's inputs of the block for some images, and the float network's outputs."""
        chosen = torch.randperm(len(self._targets[0]), generator=self._generator)[: self.images]
        if self._strides is None:
            return {node: value[chosen] for node, value in self._quantized.items()}, [value[chosen] for value in self._targets]
        tops = torch.randint(self._rows - self._height + 1, (len(chosen),), generator=self._generator)
        lefts = torch.randint(self._columns - self._width + 1, (len(chosen),), generator=self._generator)
        places = torch.stack([chosen, tops, lefts], dim=1)
        with torch.no_grad():
            targets = run_block(self._graph_module, self._block, self._windows(self._real, places), real=True)
        return self._windows(self._quantized, places), targets

    def _windows(self, values: Mapping[Node, Tensor], places: Tensor) -> dict[Node, Tensor]:
        assert self._strides is not None
        down, right = self._strides
        height, width = self._height * down, self._width * right
        return {
            node: torch.stack(
                [
                    value[image, ..., top * down : top * down + height, left * right : left * right + width]
                    for image, top, left in places.tolist()
                ]
            )
            for node, value in values.items()
        }
