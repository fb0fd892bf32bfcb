"""Seeded random programs over everything the machine does, small enough for RTL simulation."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tercel.hw.config import Config, exponents, unit_exponent
from tercel.hw.isa import Engine
from tercel.sw.emitter import Emitter
from tercel.sw.estimate import estimate
from tercel.sw.layer import lower_layer
from tercel.sw.layer_reference import layer_reference
from tercel.sw.layer_spec import Integers, Kind, LayerError, LayerSpec, LayerTensors
from tercel.sw.layer_tensors import random_tensors
from tercel.sw.lowered_layer import LoweredLayer
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import LayerMark, Program

CYCLE_LIMIT = 12000
"""Estimated cycles of a random program, at most."""


@dataclass(frozen=True)
class RandomProgram:
    """A program and what it must leave in each of its outputs."""

    program: Program
    expected: dict[str, Integers]
    layers: tuple[LayerSpec, ...]


def random_program(config: Config, *, seed: int, cycle_limit: int = CYCLE_LIMIT) -> RandomProgram:
    """One layer, two after one another, or two at the same time on different engines; always the same for the same arguments."""
    random = np.random.default_rng([seed, config.hash])
    for attempt in range(200):
        shape = random.choice(["single", "single", "single", "sequence", *(["parallel"] if config.depthwise else [])])
        try:
            found = _try_program(config, random, str(shape), size=max(0.2, 1.0 - attempt / 25))
        except LayerError:
            continue
        if estimate(found.program).cycles <= cycle_limit:
            return found
    raise RuntimeError(f"seed {seed} gave no program of at most {cycle_limit} cycles for config {config.name} (raise cycle_limit)")


def _try_program(config: Config, random: np.random.Generator, shape: str, *, size: float) -> RandomProgram:
    image = MemoryImage(config)
    lowered, layers = [], []
    expected: dict[str, Integers] = {}
    for number in range(1 if shape == "single" else 2):
        engine = ("array", "depthwise")[number] if shape == "parallel" else str(random.choice(["array", "depthwise"]))
        spec, tensors = random_layer(config, random, engine=engine, size=size, apart=shape == "parallel")
        image.prefix = "" if shape == "single" else f"layer{number}."
        # A layer of the parallel pair must not touch the other one's scratchpad, so that no order between them is wrong.
        first_bank, rotation = int(random.integers(config.pixels)), int(random.choice([0, 0, 1, 2, 5]))
        lowered.append(lower_layer(spec, tensors, image, first_bank=first_bank, rotation=rotation))
        expected[f"{image.prefix}output"] = layer_reference(spec, tensors, config)
        layers.append(spec)
    if shape == "single":
        emitter = lowered[0].emitter
        marks: tuple[LayerMark, ...] = (lowered[0].mark(first=0),)
    else:
        emitter = Emitter()
        if shape == "sequence":
            marks = _append_in_sequence(emitter, lowered)
        else:
            marks = ()
            _interleave(emitter, lowered, random)
    return RandomProgram(image.program(emitter.finish(), marks), expected, tuple(layers))


def _append_in_sequence(emitter: Emitter, lowered: list[LoweredLayer]) -> tuple[LayerMark, ...]:
    """Each engine's first instruction of a layer waits for everything of the layers before."""
    marks = []
    for layer in lowered:
        last = {emitter.engine(index): index for index in range(len(emitter))}
        marks.append(layer.mark(first=len(emitter)))
        places: dict[int, int] = {}
        begun: set[Engine] = set()
        for index in range(len(layer.emitter)):
            engine = layer.emitter.engine(index)
            emitter.splice(layer.emitter, places, after=() if engine in begun else last.values())
            begun.add(engine)
    return tuple(marks)


def _interleave(emitter: Emitter, lowered: list[LoweredLayer], random: np.random.Generator) -> None:
    """Each layer in its own order, shuffled together."""
    turns = np.repeat(np.arange(len(lowered)), [len(layer.emitter) for layer in lowered])
    random.shuffle(turns)
    places: list[dict[int, int]] = [{} for _ in lowered]
    for turn in turns:
        emitter.splice(lowered[turn].emitter, places[turn])


def random_layer(config: Config, random: np.random.Generator, *, engine: str, size: float, apart: bool) -> tuple[LayerSpec, LayerTensors]:
    """A layer for ``engine`` (``array`` where the config has no other); a ``LayerError`` for an impossible draw.

    ``size`` scales height, width and channels; ``apart`` keeps the output in the engine's own scratchpad.
    """
    on_array = engine == "array" or not config.depthwise
    kinds: list[Kind] = ["conv", "conv", "conv", "linear"] if on_array else ["depthwise", "depthwise", "max_pool", "average_pool", "linear"]
    kind = kinds[random.integers(len(kinds))]
    spec = LayerSpec(
        kind=kind,
        **_geometry(config, random, kind=kind, size=size, on_array=on_array),
        **_numbers(config, random, kind=kind, on_array=on_array),
        out_space=int(not on_array) if apart else int(config.depthwise and random.integers(2)),
    )
    extreme = random.random() < 0.15
    if extreme:
        spec = replace(
            spec,
            multiplier=int(random.integers(1 << config.multiplier_bits)),
            shift=int(random.integers(unit_exponent(config.multiplier_bits), exponents(config.multiplier_bits).stop)),
            res_multiplier=int(random.integers(1, 1 << 16)) if spec.residual else 0,
            res_shift=int(random.integers(32)) if spec.residual else 0,
        )
    spec, tensors = random_tensors(spec, config, seed=int(random.integers(1 << 32)), channel_shifts=bool(random.integers(2)))
    if extreme:
        channels = spec.output[2]
        same = kind == "average_pool"
        bias = random.integers(-(1 << 31), 1 << 31, 1 if same else channels)
        shift = random.integers(0, 16, 1 if same else channels)
        tensors = replace(tensors, bias=np.resize(bias, channels), shift=np.resize(shift, channels))
    return spec, tensors


def _geometry(config: Config, random: np.random.Generator, *, kind: Kind, size: float, on_array: bool) -> dict[str, Any]:
    def up_to(limit: float) -> int:
        return int(random.integers(1, max(2, round(limit * size) + 1)))

    def draw(values: list[int]) -> int:
        return values[random.integers(len(values))]

    channels = up_to(5 * config.lanes)
    if random.random() < 0.3:
        channels = config.lanes * up_to(4)
    out = up_to(3 * config.outputs) if kind in ("conv", "linear") else 0
    if kind == "linear":
        pixels = (up_to(6), up_to(6)) if on_array else (1, 1)
        return {"input": (*pixels, channels), "out": out, "array": on_array}
    height, width = up_to(20), up_to(20)
    kernel = (1, 1)
    if kind != "conv" or random.random() < 0.6:
        kernel = (draw([1, 2, 3, 3, 3, 4, 5, 7]), draw([1, 2, 3, 3, 3, 4, 5, 7]))
    padding = tuple(draw([0, 0, 1, 1, 2, side]) for side in (*kernel, *kernel))
    if random.random() < 0.25:
        padding = (0, 0, 0, 0)
    groups = 1
    if kind == "conv" and random.random() < 0.15:
        groups = 2
        channels, out = 2 * config.lanes * up_to(2), 2 * config.lanes * up_to(2)
    return {
        "input": (height, width, channels),
        "out": out,
        "kernel": kernel,
        "padding": padding,
        "stride": draw([1, 1, 1, 2, 2, 3, 4]),
        "dilation": (draw([1, 1, 1, 1, 2, 3]), draw([1, 1, 1, 1, 2, 3])),
        "groups": groups,
    }


def _numbers(config: Config, random: np.random.Generator, *, kind: Kind, on_array: bool) -> dict[str, Any]:
    in_signed, out_signed, res_signed = (bool(random.integers(2)) for _ in range(3))

    def zero_point(signed: bool, *, is_code: bool = False) -> int:
        smallest = -128 if signed else 0
        usual = int(random.integers(256)) + smallest
        drawn = (0, usual, int(random.integers(-256, 256)))[random.integers(3)]
        return (drawn - smallest) % 256 + smallest if is_code else drawn

    values: dict[str, Any] = {
        "weight_bits": int(random.integers(2, 2 * (config.max_digits if on_array else 4) + 1)),
        "gain": int(random.integers(1, 3)),
        "weight_offset": (0, 0, 1, int(random.integers(-255, 256)))[random.integers(4)],
        "in_signed": in_signed,
        "z_in": zero_point(in_signed, is_code=on_array),
        "out_signed": out_signed,
        "z_out": zero_point(out_signed),
    }
    if not on_array:
        # A record's weights have 8 bits. All numbers are drawn before, so that layers of the array do not depend on this.
        values["gain"] = 1 if values["weight_bits"] == 8 else values["gain"]
        half = values["gain"] << values["weight_bits"] - 1
        values["weight_offset"] = int(np.clip(values["weight_offset"], half - 128, 127 + values["gain"] - half))
    if random.random() < 0.4:
        low, high = sorted(int(bound) for bound in random.integers(-256, 256, size=2))
        values |= {"lo": low, "hi": high}
    if on_array:
        if config.threshold_depth and random.random() < 0.2:
            values |= {"thresholds": int(random.integers(1, 16)), "threshold_shared": bool(random.integers(2))}
        if kind == "conv" and random.random() < 0.3:
            values |= {"residual": True, "res_signed": res_signed, "z_res": zero_point(res_signed, is_code=True)}
        if "thresholds" not in values and "residual" not in values:
            values |= {"narrow": (None, None, None, False, True)[random.integers(5)]}
    return values
