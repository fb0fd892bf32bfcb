"""Random ARRAY instructions for small configs."""

from math import gcd

from tercel.hw.config import Config, exponents


def config_of(pixels, *, lanes=2, outputs=4, drain_lanes=2, array_depth=16384, **values):
    """A small config; at 16384 words no address is out of range."""
    return Config(
        pixels=pixels, lanes=lanes, outputs=outputs, drain_lanes=drain_lanes, memory_width=1,
        array_depth=array_depth, window_depth=array_depth, weight_depth=128, parameter_depth=64, **values,
    )  # fmt: skip


def random_fields(rng, config, *, steps=150, depth=16384, **fixed):
    """Fields of an instruction of at most ``steps`` steps that the dispatcher would let pass; pointers below ``depth``."""
    pixels = config.pixels

    def few(*weights):
        return rng.choices(range(len(weights)), weights)[0]

    while True:
        residual = rng.random() < 0.4
        narrow = not residual and rng.random() < 0.5
        thresholds = 0 if narrow or residual or not config.threshold_depth else rng.choice((0, 0, 1, 3, 15))
        f = dict(
            stride=rng.randrange(4), dilation_x=rng.choice((1, 1, 2, 15)), dilation_y=rng.choice((1, 1, 3)),
            kernel_width=few(4, 2, 3, 1), kernel_height=few(4, 2, 3, 1),
            x_start=rng.choice((0, -1, -2, 3, -30)), y_start=rng.choice((0, -1, -4, 5)),
            in_width=rng.randrange(1, 60), in_height=rng.randrange(1, 12), z_in=rng.randrange(256), in_signed=rng.randrange(2),
            tiles=few(3, 2, 1), rows=few(2, 1, 1, 1, 1), groups=few(4, 2, 1, 1), output_groups=few(2, 1, 1),
            last_lanes=rng.randrange(config.lanes), digits=rng.randrange(config.max_digits), offset=rng.randrange(-512, 512),
            weight_addr=rng.randrange(config.weight_depth), parameter_addr=rng.randrange(config.parameter_depth),
            threshold_addr=rng.randrange(max(1, config.threshold_depth)), thresholds=thresholds, threshold_shared=rng.randrange(2),
            narrow=narrow, residual=residual, in_tile=rng.randrange(depth),
            post=rng.randrange(16), gain=rng.randrange(2), out_space=rng.randrange(2),
            multiplier=rng.randrange(65536), shift=rng.choice(exponents(config.multiplier_bits)[1:]),
            z_out=rng.randrange(-256, 256), lo=rng.randrange(-256, 256),
            hi=rng.randrange(-256, 256), res_multiplier=rng.randrange(65536), res_shift=rng.randrange(32), z_res=rng.randrange(256),
            res_signed=rng.randrange(2),
        )  # fmt: skip
        f["out_width"] = max(0, (f["tiles"] + 1) * pixels - 1 - rng.choice((0, 0, 1, pixels // 2, pixels, 2 * pixels)))
        for name in ("in", "out", "res", "in_kx", "in_ky", "in_row", "out_row", "res_row"):
            f[f"{name}_bank"], f[f"{name}_addr"] = rng.randrange(pixels), rng.randrange(depth)
        for name in ("in", "out", "res"):
            f[f"{name}_pixel"] = rng.randrange(depth)
            f[f"{name}_limit"] = rng.choice((0, rng.randrange(depth)))
            f[f"{name}_span"] = rng.randrange(depth)
        f |= fixed
        count = 1
        for name in ("tiles", "rows", "groups", "output_groups", "kernel_width", "kernel_height", "digits"):
            count *= f[name] + 1
        if count * gcd(f["stride"] + 1, pixels) <= steps:
            return f
