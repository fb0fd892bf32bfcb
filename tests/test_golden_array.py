"""ARRAY in the golden model against convolution by plain loops over tensors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from golden_bench import PLAIN, Bench, Place, parameter_words, random_place, register, requantized, total_shift

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Fault, Opcode, Space

LOAD, ARRAY, STORE = (1 << engine for engine in (Engine.LOAD, Engine.ARRAY, Engine.STORE))
CONFIGS = {
    "plain": PLAIN,
    "seven": replace(PLAIN, pixels=7, lanes=8, outputs=16, drain_lanes=8, memory_width=8),
    "one": replace(PLAIN, pixels=1, lanes=2, outputs=2, drain_lanes=1, memory_width=1),
    "wide": replace(PLAIN, pixels=4, lanes=16, outputs=16, drain_lanes=1, memory_width=16),
    "ternary": replace(PLAIN, pixels=5, digit_set="ternary"),
    "per_channel": replace(PLAIN, per_channel_multiplier=True, multiplier_bits=12),
    "no_window": replace(PLAIN, depthwise=False, window_depth=0, record_depth=0, threshold_depth=0),
}


class Layer:
    """A random convolution: the fields that do not depend on addresses, tensors, and its result by loops."""

    def __init__(self, rng: np.random.Generator, config: Config, **fixed: int) -> None:
        self.config, self.rng = config, rng
        f = {
            "kernel_height": rng.integers(1, 6),
            "kernel_width": rng.integers(1, 6),
            "stride": rng.integers(1, 5),
            "dilation_x": rng.integers(1, 4),
            "dilation_y": rng.integers(1, 4),
            "x_start": rng.integers(-4, 3),
            "y_start": rng.integers(-4, 3),
            "in_height": rng.integers(1, 7),
            "in_width": rng.integers(1, 9),
            "out_height": rng.integers(1, 4),
            "out_width": rng.integers(1, 9),
            "channels": rng.integers(1, 2 * config.lanes + 2),
            "output_groups": rng.integers(1, 3),
            "digits": rng.integers(1, config.max_digits + 1),
            "in_signed": rng.integers(2),
            "offset": rng.integers(-512, 512) * rng.integers(2),
            "gain": rng.integers(2),
            "z_in": rng.integers(256),
            "multiplier": rng.integers(1 << config.multiplier_bits),
            "shift": rng.integers(14, 26),
            "z_out": rng.integers(-256, 256),
            "lo": rng.integers(-256, 0),
            "hi": rng.integers(0, 256),
            "narrow": 0,
            "thresholds": 0,
            "threshold_shared": 0,
            "residual": 0,
            "res_multiplier": rng.integers(1 << 16),
            "res_shift": rng.integers(12),
            "z_res": rng.integers(256),
            "res_signed": rng.integers(2),
            "out_space": rng.integers(2) if config.depthwise else 0,
        }
        self.f = f = {name: int(value) for name, value in (f | fixed).items()}
        self.groups = -(-f["channels"] // config.lanes)
        self.outputs = f["output_groups"] * config.outputs
        half = 1 << 2 * f["digits"] - 1
        low = -1 if config.digit_set == "ternary" else -half
        lanes = self.groups * config.lanes
        # Lanes past the last channel hold anything.
        self.input = rng.integers(0, 256, (f["in_height"], f["in_width"], lanes))
        self.codes = rng.integers(low, half, (self.outputs, lanes, f["kernel_height"], f["kernel_width"]))
        self.res = rng.integers(0, 256, (f["out_height"], f["out_width"], self.outputs))
        self.bias = rng.integers(-(1 << 31), 1 << 31, self.outputs) >> rng.integers(0, 31, self.outputs)
        self.channel_shift = rng.integers(0, 16, self.outputs) >> rng.integers(0, 4, self.outputs)
        self.channel_multiplier = rng.integers(0, 1 << 16, self.outputs)
        self.table = rng.integers(-300, 300, (self.outputs, 16))

    def expected(self) -> np.ndarray:
        """Stored bytes ``[out_height, out_width, outputs]``."""
        f = self.f
        result = np.zeros((f["out_height"], f["out_width"], self.outputs), dtype=np.uint8)
        for y, x in itertools.product(range(f["out_height"]), range(f["out_width"])):
            window = self._window(y, x)
            for n in range(self.outputs):
                result[y, x, n] = self._output(window, n, int(self.res[y, x, n])) % 256
        return result

    def _window(self, y: int, x: int) -> list[tuple[int, int, int, int]]:
        """Channel, kernel row, kernel column and code of each input of an output pixel."""
        f = self.f
        window = []
        for ky, kx, c in itertools.product(range(f["kernel_height"]), range(f["kernel_width"]), range(f["channels"])):
            row = f["y_start"] + y * f["stride"] + ky * f["dilation_y"]
            column = f["x_start"] + x * f["stride"] + kx * f["dilation_x"]
            if 0 <= row < f["in_height"] and 0 <= column < f["in_width"]:
                code = int(self.input[row, column, c]) ^ (128 if f["in_signed"] else 0)
            else:
                code = f["z_in"]
            window.append((c, ky, kx, code))
        return window

    def _output(self, window: list[tuple[int, int, int, int]], n: int, res: int) -> int:
        f = self.f
        digits = f["digits"]
        constant = (0, 2, 10, 42)[digits - 1]
        acc = sum((int(self.codes[n, c, ky, kx]) - constant) * a for c, ky, kx, a in window)
        v = (acc << f["gain"]) + int(self.bias[n]) + f["offset"] * sum(a for *_, a in window)
        s = int(self.channel_shift[n])
        multiplier = f["multiplier"]
        if self.config.per_channel_multiplier:
            multiplier = int(self.channel_multiplier[n]) % (1 << self.config.multiplier_bits)
        residual = 0
        if f["residual"]:
            residual = ((res ^ 128 if f["res_signed"] else res) - f["z_res"]) * f["res_multiplier"]
            residual <<= min(f["res_shift"] + s, 31)
        e = total_shift(f["shift"] + s, multiplier_bits=self.config.multiplier_bits, narrow=bool(f["narrow"]))
        q = requantized(register(v, 18 if f["narrow"] else 32), multiplier=multiplier, exponent=e, residual=residual)
        p = min(max(q + f["z_out"], -32768), 32767)
        if f["thresholds"]:
            return sum(p > int(t) for t in self.table[0 if f["threshold_shared"] else n, : f["thresholds"]])
        return min(max(p, f["lo"]), f["hi"])

    def weight_words(self) -> np.ndarray:
        """Weight words in the order of the walk."""
        f, config = self.f, self.config
        digits, half = f["digits"], 1 << 2 * f["digits"] - 1
        words = []
        for og, plane, ky, kx, group in itertools.product(
            range(f["output_groups"]), reversed(range(digits)), range(f["kernel_height"]), range(f["kernel_width"]), range(self.groups)
        ):
            word = 0
            for n, k in itertools.product(range(config.outputs), range(config.lanes)):
                code = int(self.codes[og * config.outputs + n, group * config.lanes + k, ky, kx])
                digit = ((code + half) >> 2 * plane & 3) - 2
                word |= (digit & 3) << 2 * (n * config.lanes + k)
            words.append(list(word.to_bytes(config.weight_word_bytes, "little")))
        return np.array(words)

    def run(self) -> np.ndarray:
        """The same by the golden model: everything is loaded, computed, stored."""
        f, config, rng = self.f, self.config, self.rng
        bench = Bench(config)
        groups_out = self.outputs // config.lanes
        source = random_place(rng, config, height=f["in_height"], width=f["in_width"], groups=self.groups, first_word=20)
        place = {"height": f["out_height"], "width": f["out_width"], "groups": groups_out}
        result = random_place(rng, config, **place, first_word=int(rng.integers(280, 290)))
        in_place = f["residual"] and f["out_space"] == 0 and rng.integers(2)
        res = result if in_place else random_place(rng, config, **place, first_word=int(rng.integers(140, 150)))
        source.transfer(bench, Opcode.LOAD, Space.ARRAY, bench.place(self.input))
        if f["residual"]:
            res.transfer(bench, Opcode.LOAD, Space.ARRAY, bench.place(self.res))
        weight_addr = int(rng.integers(config.weight_depth))
        parameter_addr = int(rng.integers(config.parameter_depth))
        threshold_addr = int(rng.integers(config.threshold_depth)) if f["thresholds"] else 0
        parameters = parameter_words(
            config,
            self.bias,
            self.channel_shift,
            self.channel_multiplier,
            channels=config.drain_lanes,
            word_bytes=config.parameter_word_bytes,
        )
        if f["thresholds"]:
            table = np.zeros((self.table.size, config.threshold_word_bytes), dtype=np.uint8)
            table[:, :2] = self.table.astype("<i2").reshape(-1, 1).view(np.uint8)
            bench.load_linear(Space.THRESHOLD, table, threshold_addr)
        bench.load_linear(Space.WEIGHT, self.weight_words(), weight_addr)
        bench.load_linear(Space.PARAMETER, parameters, parameter_addr, post=ARRAY)
        pointers = source.fields("in", y=f["y_start"], x=f["x_start"], rows=f["stride"]) | result.fields("out")
        pointers["in_kx_bank"], pointers["in_kx_addr"] = source.delta(pixels=f["dilation_x"])
        pointers["in_ky_bank"], pointers["in_ky_addr"] = source.delta(rows=f["dilation_y"])
        if f["residual"]:
            pointers |= res.fields("res")
        counts = {name: f[name] - 1 for name in ("kernel_height", "kernel_width", "stride", "out_width", "output_groups", "digits")}
        same = {name: f[name] for name in f if name not in counts and name not in ("channels", "out_height")}
        bench.add(
            Opcode.ARRAY,
            wait=LOAD,
            post=STORE,
            in_tile=f["stride"] * self.groups,
            rows=f["out_height"] - 1,
            tiles=-(-f["out_width"] // config.pixels) - 1,
            groups=self.groups - 1,
            last_lanes=(f["channels"] - 1) % config.lanes,
            weight_addr=weight_addr,
            parameter_addr=parameter_addr,
            threshold_addr=threshold_addr,
            **counts,
            **same,
            **pointers,
        )
        target = bench.place(bytes(f["out_height"] * f["out_width"] * self.outputs))
        result.transfer(bench, Opcode.STORE, Space(f["out_space"]), target, wait=ARRAY)
        ended = bench.run()
        assert (ended.fault, ended.fault_index) == (Fault.NONE, 0)
        assert ended.executed == list(range(len(bench.program) - 1))
        return bench.memory[target : target + f["out_height"] * f["out_width"] * self.outputs].reshape(f["out_height"], f["out_width"], -1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(6))
def test_random_layers(name: str, seed: int) -> None:
    """Every config, kernels of 1..5, strides of 1..4, padding, dilation, all sizes at random."""
    layer = Layer(np.random.default_rng([seed, len(name)]), CONFIGS[name])
    assert np.array_equal(layer.run(), layer.expected())


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
def test_kernels_and_strides(kernel: int, stride: int) -> None:
    """Every square kernel with every stride."""
    rng = np.random.default_rng(10 * kernel + stride)
    layer = Layer(rng, PLAIN, kernel_height=kernel, kernel_width=kernel, stride=stride, x_start=-(kernel // 2), y_start=-(kernel // 2))
    assert np.array_equal(layer.run(), layer.expected())


MODES = {
    "narrow": {"narrow": 1},
    "narrow with gain and offset": {"narrow": 1, "gain": 1, "offset": -300, "digits": 4},
    "thresholds": {"thresholds": 15},
    "shared thresholds": {"thresholds": 7, "threshold_shared": 1},
    "one threshold": {"thresholds": 1},
    "residual": {"residual": 1, "out_space": 0},
    "residual into the window": {"residual": 1, "out_space": 1},
    "residual with thresholds": {"residual": 1, "thresholds": 3},
    "residual shift above 31": {"residual": 1, "res_shift": 31, "shift": 39},
    "smallest exponent": {"shift": 8},
    "largest exponent": {"shift": 39},
    "ends of offset": {"offset": -512, "digits": 4},
    "only padding": {"in_height": 1, "y_start": 40},
    "empty image": {"in_width": 3, "x_start": -100, "kernel_width": 1},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_modes(mode: str, seed: int) -> None:
    """What the drain can do, and the ends of its fields."""
    layer = Layer(np.random.default_rng([seed, len(mode)]), PLAIN, **MODES[mode])
    assert np.array_equal(layer.run(), layer.expected())


def test_sums_wrap() -> None:
    """A sum past 31 bits keeps its low 32."""
    layer = Layer(np.random.default_rng(3), PLAIN, digits=4, gain=1, shift=30, multiplier=1 << 15)
    layer.bias[:] = (1 << 31) - 1
    expected = layer.expected()
    assert np.array_equal(layer.run(), expected)


def test_field_2_selects_0_on_a_ternary_machine() -> None:
    """The field that is -2 elsewhere."""
    layer = Layer(np.random.default_rng(5), CONFIGS["ternary"], multiplier=256, shift=8)
    layer.bias[:] = 0
    layer.channel_shift[:] = 0
    zeros = layer.codes == 0
    layer.codes[zeros] = -2
    kept = layer.weight_words()
    layer.codes[zeros] = 0
    layer.weight_words = lambda: kept
    assert np.array_equal(layer.run(), layer.expected())


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of one block or one by one."""
    monkeypatch.setattr("tercel.sim.golden.array._BLOCK_CODES", 100)
    layer = Layer(np.random.default_rng(11), PLAIN, residual=1, out_width=8, out_height=3)
    assert np.array_equal(layer.run(), layer.expected())


def test_sums_past_24_bits_are_exact() -> None:
    """Where float32 would round."""
    config = replace(PLAIN, array_depth=2048, weight_depth=8192)
    fixed = {"kernel_height": 1, "kernel_width": 1, "stride": 1, "in_height": 1, "in_width": 2, "x_start": 0, "y_start": 0}
    rng = np.random.default_rng(2)
    layer = Layer(
        rng, config, **fixed, channels=600, digits=4, in_signed=0, output_groups=1, out_height=1, out_width=2, shift=8, multiplier=128
    )
    layer.input[:] = rng.integers(250, 256, layer.input.shape)
    layer.codes[:] = -128
    layer.codes[:, ::7] = -127
    layer.bias[:] = 600 * 253 * 170
    layer.channel_shift[:] = 15
    assert int(abs(layer.codes - 42).sum(axis=1).max()) * 255 > 1 << 24
    assert np.array_equal(layer.run(), layer.expected())


def test_pixels_of_a_row_buffer_are_where_the_place_says() -> None:
    """The test's own arithmetic: a tensor in a circular buffer, by hand."""
    place = Place(PLAIN, height=2, width=4, groups=2, bank=1, addr=10, row_words=4, capacity=3, first=2)
    assert [place.locate(0, x) for x in range(4)] == [(1, 18), (2, 18), (0, 20), (1, 20)]
    assert place.locate(1, -2) == (2, 8)
