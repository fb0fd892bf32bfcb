"""What the feeder gives to the array, written down from the semantics of ARRAY as a plain generator, and when."""

from dataclasses import dataclass
from math import gcd

from tercel.hw.array.drain import drain_latency
from tercel.hw.array.feed import DRAIN_LAYOUT, drain_interval
from tercel.hw.config import Config


class Fault(Exception):
    """An access out of range: nothing more comes out."""


@dataclass
class Slot:
    """One transaction: a step or a residual word."""

    step: bool
    acts: list[list[int] | None]
    weight_addr: int = 0
    shift: bool = False
    sum: bool = False
    residual_word: int = 0
    tile: dict | None = None
    cycles: int = 1
    row_starts: bool = False
    first_tile: bool = False


def add(config: Config, pointer, delta, *, pixel):
    """Pointer plus delta."""
    bank, addr = pointer[0] + delta[0], pointer[1] + delta[1]
    if bank >= config.pixels:
        bank, addr = bank - config.pixels, addr + pixel
    return bank, addr % 2**14


def add_row(config: Config, pointer, delta, *, pixel, limit, span):
    """The same with the wrap of a circular buffer."""
    bank, addr = add(config, pointer, delta, pixel=pixel)
    return bank, (addr - span) % 2**14 if limit and addr >= limit else addr


def pixel_of(config: Config, pointer, number, *, pixel):
    """Pointer of pixel ``number`` of a row."""
    bank = pointer[0] + number
    return bank % config.pixels, (pointer[1] + bank // config.pixels * pixel) % 2**14


def code_of(word, lane, signed):
    """Code of one lane, 128 greater than it is if signed."""
    return (word >> 8 * lane & 0xFF) ^ (128 if signed else 0)


def checked(addr, depth):
    """``addr`` if it is in range."""
    if addr >= depth:
        raise Fault
    return addr


def feed(config: Config, f: dict[str, int], *, index: int, word):
    """All slots of instruction ``f``, ``word(bank, addr)`` being the scratchpad. Raises Fault where the feeder would stop."""
    p, k, n = config.pixels, config.lanes, config.outputs
    m = n // k
    stride = f["stride"] + 1
    tensor = {
        name: dict(pixel=f[f"{name}_pixel"], limit=f[f"{name}_limit"], span=f[f"{name}_span"]) for name in ("in", "out", "res")
    }
    start = {name: (f[f"{name}_bank"], f[f"{name}_addr"]) for name in tensor}
    planes, heights, widths = f["digits"] + 1, f["kernel_height"] + 1, f["kernel_width"] + 1
    groups, output_groups, tiles = f["groups"] + 1, f["output_groups"] + 1, f["tiles"] + 1
    depth_out = config.window_depth if f["out_space"] else config.array_depth
    for row in range(f["rows"] + 1):
        if row:
            for name, shape in tensor.items():
                start[name] = add_row(config, start[name], (f[f"{name}_row_bank"], f[f"{name}_row_addr"]), **shape)
        row_starts = True
        for tile in range(tiles):
            valid = [tile * p + pixel <= f["out_width"] for pixel in range(p)]
            for group_out in range(output_groups):
                number = 0
                kernel_row = {}
                pointer = start["in"]
                for ky in range(heights):
                    if ky:
                        pointer = add_row(config, pointer, (f["in_ky_bank"], f["in_ky_addr"]), **tensor["in"])
                    kernel_row[ky] = pointer
                steps = planes * heights * widths * groups
                for plane in range(planes):
                    for ky in range(heights):
                        pointer = kernel_row[ky]
                        y = f["y_start"] + row * stride + ky * f["dilation_y"]
                        for kx in range(widths):
                            if kx:
                                pointer = add(config, pointer, (f["in_kx_bank"], f["in_kx_addr"]), pixel=f["in_pixel"])
                            for group in range(groups):
                                number += 1
                                last = number == steps
                                base = pointer[0], (pointer[1] + tile * f["in_tile"] + group) % 2**14
                                if last and f["residual"]:
                                    for j in range(m):
                                        acts: list[list[int] | None] = [None] * p
                                        for pixel in range(p):
                                            if valid[pixel]:
                                                bank, addr = pixel_of(config, start["res"], tile * p + pixel, pixel=f["res_pixel"])
                                                addr = checked((addr + group_out * m + j) % 2**14, config.array_depth)
                                                acts[(start["out"][0] + pixel) % p] = [
                                                    code_of(word(bank, addr), lane, f["res_signed"]) for lane in range(k)
                                                ]
                                        yield Slot(step=False, acts=acts, residual_word=j, row_starts=row_starts)
                                        row_starts = False
                                acts = [[f["z_in"]] * k for _ in range(p)]
                                for pixel in range(p):
                                    x = f["x_start"] + (tile * p + pixel) * stride + kx * f["dilation_x"]
                                    if valid[pixel] and 0 <= x < f["in_width"] and 0 <= y < f["in_height"]:
                                        bank, addr = pixel_of(config, base, pixel * stride, pixel=f["in_pixel"])
                                        data = word(bank, checked(addr, config.array_depth))
                                        acts[(start["out"][0] + pixel) % p] = [code_of(data, lane, f["in_signed"]) for lane in range(k)]
                                if group == groups - 1:
                                    acts = [[a if lane <= f["last_lanes"] else 0 for lane, a in enumerate(codes)] for codes in acts]
                                slot = Slot(step=True, acts=acts, sum=plane == 0, cycles=gcd(stride, p), row_starts=row_starts)
                                slot.shift = plane > 0 and number % (steps // planes) == (1 if steps > planes else 0)
                                slot.weight_addr = (f["weight_addr"] + group_out * steps + number - 1) % config.weight_depth
                                if last:
                                    addrs: list[int | None] = [None] * p
                                    for pixel in range(p):
                                        if valid[pixel]:
                                            bank, addr = pixel_of(config, start["out"], tile * p + pixel, pixel=f["out_pixel"])
                                            for j in range(m):
                                                checked((addr + group_out * m + j) % 2**14, depth_out)
                                            addrs[bank] = (addr + group_out * m) % 2**14
                                    slot.tile = dict(
                                        addr=addrs,
                                        space=f["out_space"],
                                        parameter_addr=(f["parameter_addr"] + group_out * config.drain_groups) % config.parameter_depth,
                                        threshold_addr=(f["threshold_addr"] + (0 if f["threshold_shared"] else group_out * n * 16))
                                        % max(2, config.threshold_depth),
                                        end=(row, tile, group_out) == (f["rows"], f["tiles"], f["output_groups"]),
                                        index=index,
                                        post=f["post"],
                                        config={name: f[name] for name in DRAIN_LAYOUT.members},
                                    )
                                    slot.first_tile = (row, tile, group_out) == (0, 0, 0)
                                yield slot
                                row_starts = False


def schedule(config: Config, program: list[tuple[dict[str, int], list[Slot]]], *, accepted: int) -> list[int]:
    """Cycle of each slot when the first instruction is held at ``accepted`` and each other one in time; in cycles of issue."""
    cycles = []
    time, earliest_last = accepted - 1, 0
    for f, slots in program:
        load = max(time + 1, accepted)
        ready = load + 4
        for slot in slots:
            if slot.row_starts:
                restart = max(time + 1, ready)
                time, ready = restart, restart + 6
            time += slot.cycles
            if slot.tile is not None:
                interval = drain_interval(config, narrow=bool(f["narrow"]), thresholds=f["thresholds"])
                time = max(time, earliest_last)
                earliest_last = time + interval + (drain_latency(config) if slot.tile["end"] else 0)
            cycles.append(time)
        # The next one is held two cycles after this one was loaded.
        accepted = load + 2
    return cycles
