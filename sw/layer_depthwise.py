"""Depthwise convolutions, pools and matrix-vector products as DEPTHWISE instructions, cut to fit the on-chip memories.

The output is cut into bands and chunks as on the array; where one row of all channels does not fit the window scratchpad, the channel
groups are cut into slices first, each of which is a layer of its own.
"""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import Mode, Opcode, Space
from tercel.sw.band import BandPlan, Layout, plan_bands
from tercel.sw.chunk import Chunks, LinearPart
from tercel.sw.emitter import Emitter
from tercel.sw.layer_array import input_fields
from tercel.sw.layer_spec import Integers, Kind, LayerError, LayerSpec, LayerTensors, check, check_multiplier
from tercel.sw.lowered_layer import LayerPorts, LoweredLayer
from tercel.sw.memory_image import MemoryImage
from tercel.sw.tensor_layout import ceil_div, pack_depthwise_records, pack_matrix_records, pack_parameters, window_pitch
from tercel.sw.transfer import load_words, move_groups

MODES: dict[Kind, Mode] = {"depthwise": Mode.CONV, "max_pool": Mode.MAX, "average_pool": Mode.AVERAGE, "linear": Mode.MATRIX_VECTOR}


def lower_depthwise(
    spec: LayerSpec, tensors: LayerTensors, image: MemoryImage, ports: LayerPorts, *, first_bank: int, rotation: int
) -> LoweredLayer:
    """The instructions of a ``depthwise``, pool or one-pixel ``linear`` layer; a ``LayerError`` if it cannot fit."""
    config = image.config
    check_depthwise(spec, config)
    mode = MODES[spec.kind]
    input_groups = ceil_div(spec.input[2], config.lanes)
    output_groups = ceil_div(spec.output[2], config.lanes)
    check(max(input_groups, output_groups) <= 1024, "input", f"at most {1024 * config.lanes} channels", spec.input[2], "split the channels")
    slice_groups, plan = _plan(spec, config, input_groups, output_groups, first_bank=first_bank, rotation=rotation)
    sections = ceil_div(output_groups, slice_groups)
    parts = depthwise_parts(spec, tensors, image, groups=sections * slice_groups)
    average = image.add_data("parameters", depthwise_parameters(tensors, config, channels=config.lanes)) if mode is Mode.AVERAGE else None
    chunks = Chunks.plan(parts, sections=sections, groups=slice_groups)
    numbers = depthwise_numbers(spec, config)

    emitter = Emitter()
    always = []
    if average is not None:
        always = load_words(
            emitter,
            Space.DEPTHWISE_PARAMETER,
            address=average,
            word_bytes=config.depthwise_parameter_word_bytes,
            first=0,
            count=1,
            depth=config.record_depth,
            after=(),
        )
    for section in range(sections):
        first_group = section * slice_groups
        count = min(slice_groups, output_groups - first_group)
        # A matrix-vector product needs all of its input for every output.
        moved = (0, input_groups) if mode is Mode.MATRIX_VECTOR else (first_group, count)
        here = [chunk for chunk in chunks.chunks if chunk.section == section and chunk.first < count]
        for band in plan.bands:
            ready = list(always)
            inputs, users = plan.input_place(band)
            if band.input_rows:
                ready += move_groups(
                    emitter, Opcode.LOAD, ports.input, inputs, rows=band.input_rows, columns=band.input_columns, groups=moved, after=users
                )
            outputs, output_users = plan.output_place(band)
            computed = []
            for chunk in here:
                addresses, loads = chunks.bring(emitter, chunk)
                values = numbers | input_fields(spec, band, inputs, group=0 if mode is Mode.MATRIX_VECTOR else chunk.first)
                values |= outputs.fields("out", row=band.row, column=0, step=1, group=chunk.first)
                values |= {
                    "groups": min(chunk.count, count - chunk.first) - 1,
                    "record_addr": addresses.get(Space.RECORD, 0),
                    "parameter_addr": addresses.get(Space.DEPTHWISE_PARAMETER, 0),
                }
                computed.append(emitter.add(Opcode.DEPTHWISE, values, after=[*ready, *loads, *output_users]))
                chunks.used(chunk, computed[-1:])
            stored = move_groups(
                emitter,
                Opcode.STORE,
                ports.output,
                outputs,
                rows=band.rows,
                columns=band.columns,
                groups=(first_group, count),
                after=computed,
            )
            plan.release(readers=computed, stores=stored)
    return LoweredLayer(emitter=emitter, kind=spec.kind, engine="depthwise", macs=spec.macs, digits=1)


def _plan(
    spec: LayerSpec, config: Config, input_groups: int, output_groups: int, *, first_bank: int, rotation: int
) -> tuple[int, BandPlan]:
    """Bands of as many channel groups as fit: the groups of one slice and the plan that all slices use."""
    pitch = window_pitch(width=spec.input[1], banks=config.pixels, stride=spec.stride, dilation=spec.dilation)
    layout = Layout(
        input_space=1,
        input_pitch=ceil_div(pitch, config.pixels) * config.pixels if rotation else pitch,
        input_words=input_groups,
        output_space=spec.out_space,
        output_words=output_groups,
        first_bank=first_bank,
        rotation=rotation,
    )
    if spec.kind == "linear":
        return output_groups, plan_bands(spec, config, layout)
    slices = 1
    while True:
        size = ceil_div(output_groups, slices)
        try:
            return size, plan_bands(spec, config, replace(layout, input_words=size, output_words=size))
        except LayerError:
            if size == 1:
                raise
        slices += 1


def check_depthwise(spec: LayerSpec, config: Config) -> None:
    """:class:`~tercel.sw.layer_spec.LayerError` for what no cutting helps against."""
    check(config.depthwise, "kind", "conv or linear", spec.kind, f"config {config.name} has no depthwise engine")
    check_multiplier(spec, config)
    check(spec.narrow is not True, "narrow", "false", spec.narrow, "only the array has narrow sums")


def depthwise_numbers(spec: LayerSpec, config: Config) -> dict[str, int]:
    """The fields that are the same in all instructions of the layer."""
    return {
        "z_in": spec.z_in,
        "in_signed": int(spec.in_signed),
        "mode": int(MODES[spec.kind]),
        "steps": ceil_div(spec.input[2], config.lanes) - 1 if spec.kind == "linear" else 0,
        "multiplier": spec.multiplier,
        "shift": spec.shift,
        "z_out": spec.z_out,
        "lo": spec.low,
        "hi": spec.high,
        "out_space": spec.out_space,
    }


def depthwise_parameters(tensors: LayerTensors, config: Config, *, channels: int) -> bytes:
    """The parameter words of the first ``channels`` channels; a pool's are all equal, so a short tensor is continued."""
    bias, shift, multiplier = (np.resize(values, channels) for values in (tensors.bias, tensors.shift, tensors.multiplier))
    if not config.per_channel_multiplier:
        multiplier = np.zeros_like(bias)
    return pack_parameters(bias=bias, shift=shift, multiplier=multiplier, channels=config.lanes)


def fits_records(spec: LayerSpec, weights: Integers) -> bool:
    """Whether all weights of these codes have the 8 bits that the depthwise engine multiplies by; true of pools, which have none."""
    low, high = _weight_range(spec, weights)
    return low >= -128 and high <= 127


def record_weights(spec: LayerSpec, weights: Integers) -> Integers:
    """What records hold for a layer's codes: the weights ``gain * d + weight_offset`` themselves. :class:`LayerError` beyond 8 bits."""
    low, high = _weight_range(spec, weights)
    way_out = "the depthwise engine multiplies by 8 bits; take symmetric weights or fewer weight_bits"
    check(fits_records(spec, weights), "weights gain * d + weight_offset", "in -128..127", f"{low}..{high}", way_out)
    return spec.gain * weights + spec.weight_offset


def _weight_range(spec: LayerSpec, weights: Integers) -> tuple[int, int]:
    if not weights.size:
        return 0, 0
    return spec.gain * int(weights.min()) + spec.weight_offset, spec.gain * int(weights.max()) + spec.weight_offset


def depthwise_parts(spec: LayerSpec, tensors: LayerTensors, image: MemoryImage, *, groups: int) -> list[LinearPart]:
    """What each of ``groups`` channel groups (matrix-vector: output groups) needs, zeros past the last; nothing for pools."""
    config = image.config
    missing = groups * config.lanes - spec.output[2]
    if spec.kind == "linear":
        words = ceil_div(spec.input[2], config.lanes) * max(1, config.lanes // 8)
        records = pack_matrix_records(record_weights(spec, tensors.weights), config=config)
    elif spec.kind == "depthwise":
        words = ceil_div(spec.kernel[0], 3) * ceil_div(spec.kernel[1], 3)
        records = pack_depthwise_records(np.pad(record_weights(spec, tensors.weights), ((0, 0), (0, 0), (0, missing))), config=config)
    else:
        return []
    return [
        LinearPart(
            space=Space.RECORD,
            depth_name="record_depth",
            depth=config.record_depth,
            address=image.add_data("records", records),
            word_bytes=config.lanes,
            words=words,
        ),
        LinearPart(
            space=Space.DEPTHWISE_PARAMETER,
            depth_name="record_depth",
            depth=config.record_depth,
            address=image.add_data("parameters", depthwise_parameters(tensors, config, channels=groups * config.lanes)),
            word_bytes=config.depthwise_parameter_word_bytes,
            words=1,
        ),
    ]
