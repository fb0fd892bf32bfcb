"""Single layers as complete programs, before any compiler."""

from tercel.hw.config import Config
from tercel.sw.layer_array import lower_array
from tercel.sw.layer_depthwise import lower_depthwise
from tercel.sw.layer_spec import LayerError, LayerSpec, LayerTensors, check
from tercel.sw.lowered_layer import LayerPorts, LoweredLayer
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import Program

__all__ = ["LayerError", "LayerSpec", "LayerTensors", "build_layer", "lower_layer"]


def build_layer(spec: LayerSpec, tensors: LayerTensors, config: Config, *, first_bank: int = 0, rotation: int = 0) -> Program:
    """A program that loads a layer's tensors, computes it and stores the output.

    Parameters
    ----------
    spec, tensors
        The layer; ``multiplier`` and ``shift`` must be given (:func:`~tercel.sw.layer_tensors.calibrate` finds them).
    config
        The machine.
    first_bank
        Bank of the first pixel of every tensor in its scratchpad.
    rotation
        More than 0: rows lie in circular buffers, beginning that many rows into them.

    :class:`LayerError` if the machine lacks what the layer needs or a single row or group does not fit.
    """
    image = MemoryImage(config)
    lowered = lower_layer(spec, tensors, image, first_bank=first_bank, rotation=rotation)
    return image.program(lowered.emitter.finish(), (lowered.mark(first=0),))


def lower_layer(spec: LayerSpec, tensors: LayerTensors, image: MemoryImage, *, first_bank: int = 0, rotation: int = 0) -> LoweredLayer:
    """The layer's instructions, as :func:`build_layer`; its tensors get places in ``image``."""
    config = image.config
    check(spec.shift > 0, "shift", "positive", spec.shift, "calibrate the layer first")
    check(0 <= first_bank < config.pixels, "first_bank", f"below pixels={config.pixels}", first_bank, "banks count from 0")
    ports = LayerPorts(
        input=image.add_input("input", tensors.input, signed=spec.in_signed),
        residual=image.add_input("residual", tensors.residual, signed=spec.res_signed) if spec.residual else None,
        output=image.add_output("output", spec.output, signed=spec.out_signed),
    )
    return lower_to_ports(spec, tensors, image, ports, first_bank=first_bank, rotation=rotation)


def lower_to_ports(
    spec: LayerSpec, tensors: LayerTensors, image: MemoryImage, ports: LayerPorts, *, first_bank: int = 0, rotation: int = 0
) -> LoweredLayer:
    """As :func:`lower_layer` with tensors that have their places already; of ``tensors`` the weights and parameters count."""
    lower = lower_array if spec.on_array(image.config) else lower_depthwise
    return lower(spec, tensors, image, ports, first_bank=first_bank, rotation=rotation)
