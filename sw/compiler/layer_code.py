"""What the instructions of one layer have in common: fields, weights in external memory, groups of channels."""

from dataclasses import dataclass, replace

import numpy as np

from tercel.hw.isa import Mode, Space
from tercel.sw.chunk import LinearPart, check_parts
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_array import array_numbers, array_parts, shared_table
from tercel.sw.layer_depthwise import depthwise_numbers, depthwise_parameters, depthwise_parts
from tercel.sw.layer_spec import Integers, LayerSpec, LayerTensors, as_conv
from tercel.sw.memory_image import MemoryImage
from tercel.sw.tensor_layout import ceil_div

_EMPTY: Integers = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class LayerCode:
    """A layer ready to be cut into instructions.

    Attributes
    ----------
    spec
        The layer, linear ones on the array as the convolutions that they are.
    on_array
        Whether the array runs it.
    numbers
        The fields that are the same in all its instructions.
    parts
        What each group of output channels needs in the linear memories.
    common
        What all groups share: one table of thresholds, a pool's one parameter word.
    sections, groups
        Convolution groups, and groups of output channels in each.
    section_words
        Channel groups from one section's output to the next one's.
    group_words
        Channel groups of the output that a group makes.
    """

    spec: LayerSpec
    on_array: bool
    numbers: dict[str, int]
    parts: tuple[LinearPart, ...]
    common: tuple[LinearPart, ...]
    sections: int
    groups: int
    section_words: int
    group_words: int


def layer_tensors(layer: LayerNode) -> LayerTensors:
    """The layer's constants; no activations."""
    return LayerTensors(
        input=_EMPTY,
        weights=layer.weights,
        bias=layer.bias,
        shift=layer.shift,
        multiplier=layer.multipliers if layer.multipliers.size else np.full(len(layer.bias), layer.spec.multiplier),
        thresholds=layer.thresholds,
        residual=_EMPTY,
    )


def code_layer(layer: LayerNode, image: MemoryImage, *, out_space: int) -> LayerCode:
    """Put the layer's constants into ``image``. :class:`LayerError` if a group of output channels needs more than a linear memory holds."""
    config = image.config
    tensors = layer_tensors(layer)
    spec = replace(layer.spec, out_space=out_space)
    common: list[LinearPart] = []
    if spec.on_array(config):
        spec, tensors = as_conv(spec, tensors)
        parts = array_parts(spec, tensors, config, image)
        table = shared_table(spec, tensors, config, image)
        if table is not None:
            common.append(
                LinearPart(
                    space=Space.THRESHOLD,
                    depth_name="threshold_depth",
                    depth=config.threshold_depth,
                    address=table,
                    word_bytes=config.threshold_word_bytes,
                    words=spec.thresholds,
                )
            )
        on_array, sections, numbers = True, spec.groups, array_numbers(spec, tensors, config)
        groups = ceil_div(spec.out // sections, config.outputs)
        section_words, group_words = spec.out // sections // config.lanes, config.words_per_tile
    else:
        groups = ceil_div(spec.output[2], config.lanes)
        parts = depthwise_parts(spec, tensors, image, groups=groups)
        numbers = depthwise_numbers(spec, config)
        if numbers["mode"] == Mode.AVERAGE:
            common.append(
                LinearPart(
                    space=Space.DEPTHWISE_PARAMETER,
                    depth_name="record_depth",
                    depth=config.record_depth,
                    address=image.add_data("parameters", depthwise_parameters(tensors, config, channels=config.lanes)),
                    word_bytes=config.depthwise_parameter_word_bytes,
                    words=1,
                )
            )
        on_array, sections, section_words, group_words = False, 1, 0, 1
    check_parts(parts)
    return LayerCode(
        spec=spec,
        on_array=on_array,
        numbers=numbers,
        parts=tuple(parts),
        common=tuple(common),
        sections=sections,
        groups=groups,
        section_words=section_words,
        group_words=group_words,
    )
