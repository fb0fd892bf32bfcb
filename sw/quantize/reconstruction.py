"""Learning the rounding of a whole network, block after block.

The float network and the quantized one run side by side over all images, from one block to the next; only the tensors between blocks are
in memory. When a block is reached, everything in front of it is final.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule

from tercel.sw.quantize.block_run import Values, advance
from tercel.sw.quantize.blocks import Block, find_blocks
from tercel.sw.quantize.learned_rounding import learn_block
from tercel.sw.quantize.rounding_checkpoint import RoundingCheckpoint, describe

LEARNING_IMAGES = 256
"""Images that count for learning, at most: the first ones."""


def _work(block: Block) -> int:
    """Share of a block in the time, about: the multiplications of an image."""
    return sum(layer.weight.numel() * max(layer.node.meta["val"].shape[2:].numel(), 16) for layer in block.layers)


def _report(progress: Callable[[int, int], None], steps: int, *, before: int, work: int, whole: int) -> None:
    progress(before + steps * work, whole)


def _forget(values: Values, blocks: Sequence[Block]) -> None:
    """Drop what none of the blocks to come reads."""
    needed = {node for block in blocks for node in block.inputs}
    for node in [node for node in values if node not in needed]:
        del values[node]


def learn_rounding(
    graph_module: GraphModule,
    images: Sequence[Tensor],
    *,
    steps: int,
    checkpoint: Path | None,
    progress: Callable[[int, int], None],
) -> None:
    """Round all weights of a graph and fit its biases.

    The same images, steps and number of threads give the same result, with or without interruption.

    Parameters
    ----------
    graph_module
        A calibrated graph whose weight scales are chosen; its weights and biases are replaced, and with few bits its scales.
    images
        Inputs of the graph, each of batch size 1.
    steps
        Of gradient descent in each block.
    checkpoint
        A folder for finished blocks; those found there are not learned again. None to keep nothing.
    progress
        Called with the work done and its whole, in units that take about the same time.

    Raises
    ------
    QuantizeError
        For a checkpoint of another run, and one that is damaged.
    """
    blocks = find_blocks(graph_module)
    layers = [layer for block in blocks for layer in block.layers]
    store = None if checkpoint is None else RoundingCheckpoint(checkpoint, describe(layers, images, steps=steps))
    stacked = torch.stack(list(images))
    inputs = {node: stacked for node in graph_module.graph.nodes if node.op == "placeholder"}
    real, quantized = dict(inputs), dict(inputs)
    work = [_work(block) for block in blocks]
    whole = sum(work) * steps
    before = 0
    for number, block in enumerate(blocks):
        advance(graph_module, block, real, real=True)
        if store is None or not store.load(number, block.layers):
            learn_block(
                graph_module,
                block,
                real=real,
                quantized=quantized,
                steps=steps,
                seed=number,
                progress=partial(_report, progress, before=before, work=work[number], whole=whole),
            )
            if store is not None:
                store.save(number, block.layers)
        advance(graph_module, block, quantized, real=False)
        before += work[number] * steps
        progress(before, whole)
        for values in (real, quantized):
            _forget(values, blocks[number + 1 :])
