"""Convolutions and matrix products as ARRAY instructions, cut to fit the on-chip memories.

The output is cut into bands of rows (pointwise layers: of pixels, as one long row each) whose input, residual and output lie in the
scratchpads, and for each band into chunks of output groups whose weights and parameters fit their memories. Where there is more than
one band or chunk, each place exists twice if possible, so that the next is loaded while one is computed.
"""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import Opcode, Space
from tercel.sw import numeric
from tercel.sw.band import Band, Layout, plan_bands
from tercel.sw.chunk import Chunk, Chunks, LinearPart
from tercel.sw.emitter import Emitter
from tercel.sw.layer_bounds import fits_narrow
from tercel.sw.layer_spec import Integers, LayerSpec, LayerTensors, as_conv, check, check_multiplier
from tercel.sw.lowered_layer import LayerPorts, LoweredLayer
from tercel.sw.memory_image import MemoryImage
from tercel.sw.tensor_layout import Placement, ceil_div, pack_array_weights, pack_parameters, pack_thresholds
from tercel.sw.transfer import load_words, move_tensor

CODE_OFFSET = 128
"""By how much signed codes are greater inside the array, where activations have no sign."""
CHANNEL_THRESHOLDS = 16
"""Threshold words between the tables of two channels."""


def lower_array(
    spec: LayerSpec, tensors: LayerTensors, image: MemoryImage, ports: LayerPorts, *, first_bank: int, rotation: int
) -> LoweredLayer:
    """The instructions of a ``conv`` or ``linear`` layer; a ``LayerError`` where not even one band or chunk fits."""
    config = image.config
    check_array(spec, config)
    layer, layer_tensors = as_conv(spec, tensors)
    layer = _flatten(layer)
    sections = layer.groups
    outputs_per_section = ceil_div(layer.out // sections, config.outputs)
    # The words of a section's last tile may lie past its channels: the next section overwrites them.
    output_words = (sections - 1) * (layer.out // sections // config.lanes) + outputs_per_section * config.words_per_tile
    pitch = layer.input[1]
    plan = plan_bands(
        layer,
        config,
        Layout(
            input_space=0,
            input_pitch=ceil_div(pitch, config.pixels) * config.pixels if rotation else pitch,
            input_words=ceil_div(layer.input[2], config.lanes),
            output_space=layer.out_space,
            output_words=output_words,
            residual=layer.residual,
            first_bank=first_bank,
            rotation=rotation,
        ),
    )
    parts = array_parts(layer, layer_tensors, config, image)
    table = shared_table(layer, layer_tensors, config, image)
    source = replace(ports.input, shape=layer.input)
    residual = None if ports.residual is None else replace(ports.residual, shape=layer.output)
    target = replace(ports.output, shape=layer.output)
    chunks = Chunks.plan(parts, sections=sections, groups=outputs_per_section)
    numbers = array_numbers(layer, layer_tensors, config)

    emitter = Emitter()
    always = [] if table is None else _load_table(emitter, table, layer, config)
    for band in plan.bands:
        ready = list(always)
        inputs, users = plan.input_place(band)
        if band.input_rows:
            rectangle = {"rows": band.input_rows, "column": band.input_column, "columns": band.input_columns}
            ready.append(move_tensor(emitter, Opcode.LOAD, source, inputs, after=users, **rectangle))
        outputs, output_users = plan.output_place(band)
        rectangle = {"rows": band.rows, "column": band.column, "columns": band.columns}
        residuals = None
        if residual is not None:
            residuals, users = plan.residual_place(band)
            ready.append(move_tensor(emitter, Opcode.LOAD, residual, residuals, after=users, **rectangle))
        computed = []
        for chunk in chunks.chunks:
            addresses, loads = chunks.bring(emitter, chunk)
            values = numbers | array_geometry(layer, config, band, inputs, chunk)
            word = chunk.section * (layer.out // sections // config.lanes) + chunk.first * config.words_per_tile
            values |= outputs.fields("out", row=band.row, column=0, step=1, group=word)
            if residuals is not None:
                values |= residuals.fields("res", row=band.row, column=0, step=1, group=word)
            values |= {"weight_addr": addresses[Space.WEIGHT], "parameter_addr": addresses[Space.PARAMETER]}
            values |= {"threshold_addr": addresses.get(Space.THRESHOLD, 0)}
            computed.append(emitter.add(Opcode.ARRAY, values, after=[*ready, *loads, *output_users]))
            chunks.used(chunk, computed[-1:])
        stored = move_tensor(emitter, Opcode.STORE, target, outputs, after=computed, **rectangle)
        plan.release(readers=computed, stores=[stored])
    return LoweredLayer(emitter=emitter, kind=spec.kind, engine="array", macs=spec.macs, digits=spec.digits)


def check_array(spec: LayerSpec, config: Config) -> None:
    """:class:`~tercel.sw.layer_spec.LayerError` for what no cutting helps against."""
    check(
        spec.digits <= config.max_digits,
        "weight_bits",
        f"at most {2 * config.max_digits}",
        spec.weight_bits,
        f"a {config.digit_set} machine has {config.max_digits} digit planes",
    )
    check(not spec.thresholds or config.threshold_depth > 0, "thresholds", "0", spec.thresholds, "the config has no threshold memory")
    check(
        spec.narrow is not True or not (spec.thresholds or spec.residual),
        "narrow",
        "false",
        spec.narrow,
        "thresholds and residual take wide sums",
    )
    check(spec.out_space == 0 or config.depthwise, "out_space", "0", spec.out_space, "the config has no window scratchpad")
    check_multiplier(spec, config)
    for name, zero_point, signed, counts in (
        ("z_in", spec.z_in, spec.in_signed, any(spec.padding)),
        ("z_res", spec.z_res, spec.res_signed, spec.residual),
    ):
        limit = "in -128..127" if signed else "in 0..255"
        in_range = 0 <= _array_zero_point(zero_point, signed=signed) <= 255
        check(in_range or not counts, name, limit, zero_point, "in the array a zero point is one of its tensor's codes")
    if spec.groups > 1:
        for name, channels in (("input", spec.input[2] // spec.groups), ("out", spec.out // spec.groups)):
            way_out = "pad the groups, or use kind depthwise"
            check(channels % config.lanes == 0, name, f"a multiple of lanes={config.lanes} channels in each group", channels, way_out)


def _flatten(spec: LayerSpec) -> LayerSpec:
    """A pointwise layer without stride or padding on one row of all its pixels, so that only the last tile is not full."""
    if spec.kernel != (1, 1) or spec.stride != 1 or any(spec.padding):
        return spec
    height, width, channels = spec.input
    return replace(spec, input=(1, height * width, channels), dilation=(1, 1))


def _by_section(values: Integers, spec: LayerSpec, config: Config) -> Integers:
    """One value a channel, each section padded with zeros to whole output groups: what the machine's channel numbers index."""
    sections = values.reshape(spec.groups, -1, *values.shape[1:])
    missing = -sections.shape[1] % config.outputs
    padded = np.pad(sections, ((0, 0), (0, missing), *((0, 0) for _ in values.shape[1:])))
    return padded.reshape(-1, *values.shape[1:])


def array_parts(spec: LayerSpec, tensors: LayerTensors, config: Config, image: MemoryImage) -> list[LinearPart]:
    """What each output group of a ``conv`` needs in the weight, parameter and threshold memories, its words being put into ``image``."""
    taps = spec.kernel[0] * spec.kernel[1] * ceil_div(spec.input[2] // spec.groups, config.lanes)
    weights = pack_array_weights(_by_section(tensors.weights, spec, config), digits=spec.digits, config=config)
    parameters = pack_parameters(
        bias=_by_section(_array_bias(spec, tensors), spec, config),
        shift=_by_section(tensors.shift, spec, config),
        multiplier=_by_section(tensors.multiplier if config.per_channel_multiplier else np.zeros_like(tensors.bias), spec, config),
        channels=config.drain_lanes,
    )
    parts = [
        LinearPart(
            space=Space.WEIGHT,
            depth_name="weight_depth",
            depth=config.weight_depth,
            address=image.add_data("weights", weights),
            word_bytes=config.weight_word_bytes,
            words=spec.digits * taps,
        ),
        LinearPart(
            space=Space.PARAMETER,
            depth_name="parameter_depth",
            depth=config.parameter_depth,
            address=image.add_data("parameters", parameters),
            word_bytes=config.parameter_word_bytes,
            words=config.drain_groups,
        ),
    ]
    if spec.thresholds and not spec.threshold_shared:
        table = np.zeros((spec.out, CHANNEL_THRESHOLDS), dtype=np.int64)
        table[:, : spec.thresholds] = tensors.thresholds
        data = pack_thresholds(_by_section(table, spec, config).reshape(-1), config=config)
        parts.append(
            LinearPart(
                space=Space.THRESHOLD,
                depth_name="threshold_depth",
                depth=config.threshold_depth,
                address=image.add_data("thresholds", data),
                word_bytes=config.threshold_word_bytes,
                words=CHANNEL_THRESHOLDS * config.outputs,
            )
        )
    return parts


def _array_bias(spec: LayerSpec, tensors: LayerTensors) -> Integers:
    """The bias less what signed codes, which the array takes ``CODE_OFFSET`` greater, add to the sums; modulo 2**32 as these are."""
    if not spec.in_signed:
        return tensors.bias
    weights = spec.gain * tensors.weights.reshape(spec.out, -1) + spec.weight_offset
    return numeric.wrap(tensors.bias - CODE_OFFSET * weights.sum(axis=1), bits=32)


def _array_zero_point(zero_point: int, *, signed: bool) -> int:
    return zero_point + CODE_OFFSET if signed else zero_point


def shared_table(spec: LayerSpec, tensors: LayerTensors, config: Config, image: MemoryImage) -> int | None:
    """Address of the one table of thresholds, where there is one for all channels."""
    if not spec.threshold_shared or not spec.thresholds:
        return None
    return image.add_data("thresholds", pack_thresholds(tensors.thresholds.reshape(-1), config=config))


def _load_table(emitter: Emitter, address: int, spec: LayerSpec, config: Config) -> list[int]:
    return load_words(
        emitter,
        Space.THRESHOLD,
        address=address,
        word_bytes=config.threshold_word_bytes,
        first=0,
        count=spec.thresholds,
        depth=config.threshold_depth,
        after=(),
    )


def array_numbers(spec: LayerSpec, tensors: LayerTensors, config: Config) -> dict[str, int]:
    """The fields that are the same in all instructions of the layer."""
    narrow = spec.narrow
    if narrow is None:
        narrow = fits_narrow(spec, tensors.weights, tensors.bias, tensors.shift, config)
    values = {
        # Without padding nobody sees it, and it need not be a code.
        "z_in": _array_zero_point(spec.z_in, signed=spec.in_signed) if any(spec.padding) else 0,
        "in_signed": int(spec.in_signed),
        "digits": spec.digits - 1,
        "offset": numeric.sum_factor(digits=spec.digits, gain=spec.gain, offset=spec.weight_offset),
        "gain": spec.gain - 1,
        "narrow": int(narrow),
        "multiplier": spec.multiplier,
        "shift": spec.shift,
        "z_out": spec.z_out,
        "lo": spec.low,
        "hi": spec.high,
        "thresholds": spec.thresholds,
        "threshold_shared": int(spec.threshold_shared and spec.thresholds > 0),
        "out_space": spec.out_space,
    }
    if spec.residual:
        values |= {
            "residual": 1,
            "res_multiplier": spec.res_multiplier,
            "res_shift": spec.res_shift,
            "z_res": _array_zero_point(spec.z_res, signed=spec.res_signed),
            "res_signed": int(spec.res_signed),
        }
    return values


def array_geometry(spec: LayerSpec, config: Config, band: Band, inputs: Placement, chunk: Chunk) -> dict[str, int]:
    """The fields that say which pixels and channels an ARRAY instruction reads and how many it makes."""
    channels = spec.input[2] // spec.groups
    groups = ceil_div(channels, config.lanes)
    return input_fields(spec, band, inputs, group=chunk.section * groups) | {
        "in_tile": spec.stride * inputs.pixel,
        "tiles": ceil_div(band.columns, config.pixels) - 1,
        "groups": groups - 1,
        "last_lanes": (channels - 1) % config.lanes,
        "output_groups": chunk.count - 1,
    }


def input_fields(spec: LayerSpec, band: Band, inputs: Placement, *, group: int) -> dict[str, int]:
    """The geometry and input pointer fields that ARRAY and DEPTHWISE have in common."""
    y_start = band.row * spec.stride - spec.padding[0]
    kx_bank, kx_addr = inputs.delta(columns=spec.dilation[1])
    ky_bank, ky_addr = inputs.delta(rows=spec.dilation[0])
    return inputs.fields("in", row=y_start, column=-spec.padding[1], step=spec.stride, group=group) | {
        "in_kx_bank": kx_bank,
        "in_kx_addr": kx_addr,
        "in_ky_bank": ky_bank,
        "in_ky_addr": ky_addr,
        "stride": spec.stride - 1,
        "dilation_x": spec.dilation[1],
        "dilation_y": spec.dilation[0],
        "kernel_width": spec.kernel[1] - 1,
        "kernel_height": spec.kernel[0] - 1,
        "x_start": -spec.padding[1],
        "y_start": y_start,
        "in_width": band.input_columns,
        "in_height": spec.input[0],
        "out_width": band.columns - 1,
        "rows": band.rows - 1,
    }
