"""DEPTHWISE in the golden model against plain loops over tensors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from golden_bench import PLAIN, Bench, as_code, parameter_words, random_place, register, requantized, total_shift

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Fault, Mode, Opcode, Space

LOAD, DEPTHWISE, STORE = (1 << engine for engine in (Engine.LOAD, Engine.DEPTHWISE, Engine.STORE))
CONFIGS = {
    "plain": PLAIN,
    "seven": replace(PLAIN, pixels=7, lanes=8, memory_width=8),
    "one": replace(PLAIN, pixels=1, lanes=2, outputs=2, drain_lanes=1, memory_width=1),
    "wide": replace(PLAIN, pixels=4, lanes=16, outputs=16, drain_lanes=1, memory_width=16),
    "per_channel": replace(PLAIN, per_channel_multiplier=True, multiplier_bits=9),
}


class Layer:
    """A random instruction of one mode: its fields, tensors, and its result by loops."""

    def __init__(self, rng: np.random.Generator, config: Config, mode: Mode, **fixed: int) -> None:
        self.config, self.rng, self.mode = config, rng, mode
        f = {
            "kernel_height": rng.integers(1, 8),
            "kernel_width": rng.integers(1, 8),
            "stride": rng.integers(1, 5),
            "dilation_x": rng.integers(1, 3),
            "dilation_y": rng.integers(1, 3),
            "x_start": rng.integers(-4, 3),
            "y_start": rng.integers(-4, 3),
            "in_height": rng.integers(1, 7),
            "in_width": rng.integers(1, 9),
            "out_height": rng.integers(1, 4),
            "out_width": rng.integers(1, 9),
            "groups": rng.integers(1, 4),
            "steps": rng.integers(1, 5),
            "in_signed": rng.integers(2),
            "z_in": rng.integers(-256, 256),
            "multiplier": rng.integers(1 << config.multiplier_bits),
            "shift": rng.integers(14, 26),
            "z_out": rng.integers(-256, 256),
            "lo": rng.integers(-256, 0),
            "hi": rng.integers(0, 256),
            "out_space": rng.integers(2),
        }
        self.f = f = {name: int(value) for name, value in (f | fixed).items()}
        if mode is Mode.MATRIX_VECTOR:
            f |= {"in_height": 1, "in_width": 1, "out_height": 1, "out_width": 1}
        self.in_groups = f["steps"] if mode is Mode.MATRIX_VECTOR else f["groups"]
        self.outputs = f["groups"] * config.lanes
        self.input = rng.integers(0, 256, (f["in_height"], f["in_width"], self.in_groups * config.lanes))
        self.codes = rng.integers(-128, 128, (self.outputs, f["kernel_height"], f["kernel_width"]))
        self.matrix = rng.integers(-128, 128, (self.outputs, self.in_groups * config.lanes))
        entries = config.lanes if mode is Mode.AVERAGE else self.outputs
        self.bias = rng.integers(-(1 << 31), 1 << 31, entries) >> rng.integers(0, 31, entries)
        self.channel_shift = rng.integers(0, 16, entries) >> rng.integers(0, 4, entries)
        self.channel_multiplier = rng.integers(0, 1 << 16, entries)

    def expected(self) -> np.ndarray:
        """Stored bytes ``[out_height, out_width, outputs]``."""
        f = self.f
        result = np.zeros((f["out_height"], f["out_width"], self.outputs), dtype=np.uint8)
        for y, x, n in np.ndindex(*result.shape):
            result[y, x, n] = self._output(y, x, n) % 256
        return result

    def _output(self, y: int, x: int, n: int) -> int:
        f = self.f
        if self.mode is Mode.MATRIX_VECTOR:
            acts = [as_code(int(byte), signed=bool(f["in_signed"])) for byte in self.input[0, 0]]
            acc = sum(int(d) * a for d, a in zip(self.matrix[n], acts, strict=True))
        else:
            window = self._window(y, x, n)
            if self.mode is Mode.MAX:
                largest = max((code for *_, code, inside in window if inside), default=f["z_in"])
                return min(max(largest, f["lo"]), f["hi"])
            average = self.mode is Mode.AVERAGE
            acc = sum((1 if average else int(self.codes[n, ky, kx])) * a for ky, kx, a, _ in window)
        entry = n % len(self.bias)
        multiplier = f["multiplier"]
        if self.config.per_channel_multiplier:
            multiplier = int(self.channel_multiplier[entry]) % (1 << self.config.multiplier_bits)
        v = register(acc + int(self.bias[entry]), 32)
        e = total_shift(f["shift"] + int(self.channel_shift[entry]), multiplier_bits=self.config.multiplier_bits)
        q = requantized(v, multiplier=multiplier, exponent=e)
        return min(max(min(max(q + f["z_out"], -32768), 32767), f["lo"]), f["hi"])

    def _window(self, y: int, x: int, n: int) -> list[tuple[int, int, int, bool]]:
        """Kernel row and column, code, and whether it is inside the image."""
        f = self.f
        window = []
        for ky, kx in itertools.product(range(f["kernel_height"]), range(f["kernel_width"])):
            row = f["y_start"] + y * f["stride"] + ky * f["dilation_y"]
            column = f["x_start"] + x * f["stride"] + kx * f["dilation_x"]
            inside = 0 <= row < f["in_height"] and 0 <= column < f["in_width"]
            code = as_code(int(self.input[row, column, n]), signed=bool(f["in_signed"])) if inside else f["z_in"]
            window.append((ky, kx, code, inside))
        return window

    def records(self) -> np.ndarray:
        """Record words ``[records * 9, K]``; what does not count is random."""
        f, lanes, rng = self.f, self.config.lanes, self.rng
        if self.mode is Mode.MATRIX_VECTOR:
            halves = max(1, lanes // 8)
            words = rng.integers(0, 256, (f["groups"], f["steps"], halves, 9, lanes))
            for group, step, half, t, o in itertools.product(
                range(f["groups"]), range(f["steps"]), range(halves), range(min(lanes, 8)), range(lanes)
            ):
                words[group, step, half, t, o] = self.matrix[group * lanes + o, step * lanes + 8 * half + t] % 256
            return words.reshape(-1, lanes)
        across = -(-f["kernel_width"] // 3)
        passes = across * -(-f["kernel_height"] // 3)
        words = rng.integers(0, 256, (f["groups"], passes, 9, lanes))
        for n, ky, kx in np.ndindex(*self.codes.shape):
            words[n // lanes, ky // 3 * across + kx // 3, ky % 3 * 3 + kx % 3, n % lanes] = self.codes[n, ky, kx] % 256
        return words.reshape(-1, lanes)

    def run(self) -> np.ndarray:
        """The same by the golden model: everything is loaded, computed, stored."""
        f, config, rng = self.f, self.config, self.rng
        bench = Bench(config)
        source = random_place(rng, config, height=f["in_height"], width=f["in_width"], groups=self.in_groups, first_word=20)
        result = random_place(rng, config, height=f["out_height"], width=f["out_width"], groups=f["groups"], first_word=300)
        source.transfer(bench, Opcode.LOAD, Space.WINDOW, bench.place(self.input))
        record_addr, parameter_addr = (int(addr) for addr in rng.integers(config.record_depth, size=2))
        if self.mode in (Mode.CONV, Mode.MATRIX_VECTOR):
            bench.load_linear(Space.RECORD, self.records(), record_addr)
        parameters = parameter_words(
            config,
            self.bias,
            self.channel_shift,
            self.channel_multiplier,
            channels=config.lanes,
            word_bytes=config.depthwise_parameter_word_bytes,
        )
        bench.load_linear(Space.DEPTHWISE_PARAMETER, parameters, parameter_addr, post=DEPTHWISE)
        start = {} if self.mode is Mode.MATRIX_VECTOR else {"y": f["y_start"], "x": f["x_start"]}
        pointers = source.fields("in", **start, rows=f["stride"]) | result.fields("out")
        pointers["in_kx_bank"], pointers["in_kx_addr"] = source.delta(pixels=f["dilation_x"])
        pointers["in_ky_bank"], pointers["in_ky_addr"] = source.delta(rows=f["dilation_y"])
        counts = {name: f[name] - 1 for name in ("kernel_height", "kernel_width", "stride", "out_width", "groups", "steps")}
        bench.add(
            Opcode.DEPTHWISE,
            wait=LOAD,
            post=STORE,
            mode=self.mode,
            rows=f["out_height"] - 1,
            record_addr=record_addr,
            parameter_addr=parameter_addr,
            **counts,
            **{name: f[name] for name in f if name not in counts and name != "out_height"},
            **pointers,
        )
        target = bench.place(bytes(f["out_height"] * f["out_width"] * self.outputs))
        result.transfer(bench, Opcode.STORE, Space(f["out_space"]), target, wait=DEPTHWISE)
        ended = bench.run()
        assert (ended.fault, ended.fault_index) == (Fault.NONE, 0)
        return bench.memory[target : target + f["out_height"] * f["out_width"] * self.outputs].reshape(f["out_height"], f["out_width"], -1)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_random_layers(mode: Mode, name: str, seed: int) -> None:
    """Every mode on every config, all sizes at random."""
    layer = Layer(np.random.default_rng([seed, mode, len(name)]), CONFIGS[name], mode)
    assert np.array_equal(layer.run(), layer.expected())


@pytest.mark.parametrize("mode", [Mode.CONV, Mode.MAX, Mode.AVERAGE])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", range(1, 5))
def test_kernels_and_strides(mode: Mode, kernel: int, stride: int) -> None:
    """One and several passes, with padding."""
    rng = np.random.default_rng([mode, kernel, stride])
    size = {"kernel_height": kernel, "kernel_width": kernel, "stride": stride, "x_start": -(kernel // 2), "y_start": -(kernel // 2)}
    layer = Layer(rng, PLAIN, mode, **size, in_height=6, in_width=8)
    assert np.array_equal(layer.run(), layer.expected())


def test_largest_kernel() -> None:
    """16 x 16: 36 passes."""
    rng = np.random.default_rng(1)
    layer = Layer(rng, PLAIN, Mode.CONV, kernel_height=16, kernel_width=16, groups=1, dilation_x=1, dilation_y=1, stride=1)
    assert np.array_equal(layer.run(), layer.expected())


def test_global_average() -> None:
    """The whole image under one window."""
    rng = np.random.default_rng(1)
    size = {
        "kernel_height": 7,
        "kernel_width": 7,
        "in_height": 7,
        "in_width": 7,
        "x_start": 0,
        "y_start": 0,
        "dilation_x": 1,
        "dilation_y": 1,
    }
    layer = Layer(rng, PLAIN, Mode.AVERAGE, **size, out_height=1, out_width=1, in_signed=0, multiplier=0, shift=8, lo=0, hi=255, z_out=0)
    layer.f |= {"multiplier": round((1 << 20) / 49), "shift": 20}
    layer.bias[:] = 0
    layer.channel_shift[:] = 0
    mean = layer.input.reshape(49, -1).mean(axis=0)
    assert np.abs(layer.run()[0, 0] - mean).max() <= 0.51


def test_max_of_padding_alone_is_the_zero_point() -> None:
    """z_in, then the clamp."""
    layer = Layer(np.random.default_rng(1), PLAIN, Mode.MAX, x_start=50, in_width=3, z_in=77, lo=0, hi=70)
    result = layer.run()
    assert np.array_equal(result, layer.expected())
    assert (result == 70).all()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of one block or one by one."""
    monkeypatch.setattr("tercel.sim.golden.depthwise._BLOCK_CODES", 100)
    layer = Layer(np.random.default_rng(11), PLAIN, Mode.CONV, out_width=8, out_height=3)
    assert np.array_equal(layer.run(), layer.expected())
