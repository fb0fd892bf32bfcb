"""Instructions, tiles and their codes for tests of the drain, computed with plain integers."""

from dataclasses import dataclass

from tercel.hw.array.feed import drain_interval
from tercel.hw.config import exponents


def signed_of(rng, bits):
    """A signed number of a random magnitude."""
    width = rng.randint(1, bits)
    return rng.randint(-(1 << width - 1), (1 << width - 1) - 1)


def wrapped(value, bits):
    """``value`` modulo 2**bits as a signed number."""
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


@dataclass
class Tile:
    """One tile, as the feeder and the array give it, and the codes it must become."""

    fields: dict
    index: int
    post: int
    end: bool
    interval: int
    valid: int
    addr: list
    space: int
    parameter_addr: int
    threshold_addr: int
    acc: list
    asum: list
    residual: list
    codes: list


def random_memories(rng, config):
    """Parameter words of (bias, shift, multiplier) by channel, and thresholds."""
    parameters = [
        [(signed_of(rng, 32), rng.randrange(16), rng.randrange(1 << config.multiplier_bits)) for _ in range(config.drain_lanes)]
        for _ in range(config.parameter_depth)
    ]
    thresholds = [signed_of(rng, 16) for _ in range(config.threshold_depth)]
    return parameters, thresholds


def random_fields(rng, config, *, kind):
    """The drain's fields of an instruction of a ``kind``: narrow, wide, residual, thresholds, both."""
    low, high = sorted((signed_of(rng, 9), signed_of(rng, 9)))
    fields = {
        "gain": rng.randrange(2),
        "narrow": int(kind == "narrow"),
        "multiplier": rng.randrange(1 << config.multiplier_bits),
        "shift": rng.randint(8, 30) if rng.random() < 0.8 else rng.choice(exponents(config.multiplier_bits)[1:]),
        "z_out": signed_of(rng, 9),
        "lo": low,
        "hi": high,
        "thresholds": rng.choice([1, 2, 15, rng.randint(1, 15)]) if kind in ("thresholds", "both") else 0,
        "threshold_shared": rng.randrange(2),
        "residual": int(kind in ("residual", "both")),
        "res_multiplier": rng.randrange(1 << 16),
        "res_shift": rng.randint(0, 8) if rng.random() < 0.7 else rng.randrange(32),
        "z_res": rng.randrange(256),
    }
    if kind == "residual" and rng.random() < 0.7:
        # The residual decides, to the last bit, where all channels have the instruction's multiplier.
        scale = rng.randint(0, 8)
        fields |= {"multiplier": 0, "res_multiplier": rng.randint(1 << 15, (1 << 16) - 1), "res_shift": scale, "shift": scale + 16}
        fields |= {"z_out": rng.randint(-9, 9), "lo": -256, "hi": 255}
    return fields


def random_tile(rng, config, memories, *, fields, index, post, end):
    """A tile of an instruction."""
    parameters, thresholds = memories
    bits = 18 if fields["narrow"] else 32
    rows, outputs = range(config.pixels), range(config.outputs)
    tile = Tile(
        fields=fields,
        index=index,
        post=post,
        end=end,
        interval=drain_interval(config, narrow=bool(fields["narrow"]), thresholds=fields["thresholds"]),
        valid=rng.choice([(1 << config.pixels) - 1, rng.getrandbits(config.pixels)]),
        addr=[rng.randrange(1 << 13) for _ in rows],
        space=rng.randrange(2),
        parameter_addr=rng.randrange(config.parameter_depth),
        threshold_addr=rng.randrange(max(config.threshold_depth, 1)),
        acc=[[signed_of(rng, bits) for _ in outputs] for _ in rows],
        asum=[signed_of(rng, bits) for _ in rows],
        residual=[[rng.randrange(256) for _ in outputs] for _ in rows],
        codes=[],
    )
    for row in rows:
        codes = []
        for output in outputs:
            word = (tile.parameter_addr + output // config.drain_lanes) % config.parameter_depth
            bias, shift, multiplier = parameters[word][output % config.drain_lanes]
            if not config.per_channel_multiplier:
                multiplier = fields["multiplier"]
            first = tile.threshold_addr + (0 if fields["threshold_shared"] else 16 * output)
            table = [thresholds[(first + index) % config.threshold_depth] for index in range(fields["thresholds"])]
            v = wrapped((tile.acc[row][output] << fields["gain"]) + bias + tile.asum[row], bits)
            shifts = exponents(config.multiplier_bits, narrow=bool(fields["narrow"]))
            e = shifts.start + (fields["shift"] + shift - shifts.start) % len(shifts)
            difference = tile.residual[row][output] - fields["z_res"]
            residual = difference * fields["res_multiplier"] << min(fields["res_shift"] + shift, 31) if fields["residual"] else 0
            p = (v * multiplier + residual + (1 << e >> 1) >> e) + fields["z_out"]
            p = min(max(p, -32768), 32767)
            code = sum(p > value for value in table) if table else min(max(p, fields["lo"]), fields["hi"])
            codes.append(code & 0xFF)
        tile.codes.append(codes)
    return tile
