"""Where tensors lie: pointers by the instruction set's own rules, packing, and the pitch for the depthwise engine."""

import numpy as np
import pytest

from tercel.hw.config import BASE, Config
from tercel.hw.isa import ADDR_BITS
from tercel.sw import numeric
from tercel.sw.tensor_layout import (
    Placement,
    pack_array_weights,
    pack_depthwise_records,
    pack_matrix_records,
    pack_parameters,
    pack_tensor,
    unpack_tensor,
    window_pitch,
)

MASK = (1 << ADDR_BITS) - 1


def add(pointer: tuple[int, int], delta: tuple[int, int], *, pixel: int, banks: int) -> tuple[int, int]:
    """Pointer plus delta as the instruction set says."""
    bank, addr = pointer[0] + delta[0], pointer[1] + delta[1]
    return (bank - banks, addr + pixel & MASK) if bank >= banks else (bank, addr & MASK)


@pytest.mark.parametrize("banks", [1, 2, 7, 16])
@pytest.mark.parametrize("circular", [False, True])
def test_walking_rows_reaches_every_pixel_once(banks, circular):
    random = np.random.default_rng(banks)
    for _ in range(30):
        rows, width, pixel = (int(random.integers(1, 9)) for _ in range(3))
        pitch = -(-width // banks) * banks if circular else width
        first_row, bank, base = int(random.integers(5)), int(random.integers(banks)), int(random.integers(20, 60))
        place = Placement(
            banks=banks,
            space=0,
            base=base,
            bank=bank,
            pitch=pitch,
            pixel=pixel,
            rows=rows,
            first_row=first_row,
            circular=circular and rows > 1,
            rotation=int(random.integers(10)),
        )
        column = -int(random.integers(3))
        fields = place.fields("in", row=first_row, column=column, step=1, group=0)
        pointer = (fields["in_bank"], fields["in_addr"])
        words = Placement.words_needed(banks=banks, bank=bank, pitch=pitch, pixel=pixel, rows=rows)
        used = set()
        for row in range(rows):
            pixel_pointer = pointer
            for x in range(column, width):
                assert pixel_pointer == place.pointer(row=first_row + row, column=x)
                if x >= 0:
                    for group in range(pixel):
                        used.add((pixel_pointer[0], pixel_pointer[1] + group))
                pixel_pointer = add(pixel_pointer, place.delta(columns=1), pixel=pixel, banks=banks)
            pointer = add(pointer, (fields["in_row_bank"], fields["in_row_addr"]), pixel=pixel, banks=banks)
            if fields["in_limit"] and pointer[1] >= fields["in_limit"]:
                pointer = (pointer[0], pointer[1] - fields["in_span"] & MASK)
        assert len(used) == rows * width * pixel
        assert min(addr for _, addr in used) >= base
        assert max(addr for _, addr in used) < base + words


@pytest.mark.parametrize("signed", [False, True])
def test_tensor_round_trip(signed):
    codes = np.random.default_rng(0).integers(-128 if signed else 0, 128 if signed else 256, (3, 5, 11))
    data = np.frombuffer(pack_tensor(codes, lanes=4), dtype=np.uint8)
    assert data.shape == (3 * 5 * 12,)
    assert data[(1 * 5 + 2) * 12 + 10] == codes[1, 2, 10] & 0xFF
    assert np.array_equal(unpack_tensor(data, shape=(3, 5, 11), lanes=4, signed=signed), codes)


def test_weight_words():
    config = Config(lanes=4, outputs=8, drain_lanes=4, memory_width=4)
    codes = np.random.default_rng(1).integers(-8, 8, (11, 2, 3, 9))
    words = np.frombuffer(pack_array_weights(codes, digits=2, config=config), dtype="<u8")
    fields = numeric.encode_digits(codes, digits=2)
    assert len(words) == 2 * 2 * 6 * 3
    for output, ky, kx, channel, plane in [(0, 0, 0, 0, 0), (10, 1, 2, 8, 1), (7, 1, 0, 5, 1), (8, 0, 1, 4, 0)]:
        word = int(words[((output // 8 * 2 + plane) * 6 + ky * 3 + kx) * 3 + channel // 4])
        assert word >> 2 * (output % 8 * 4 + channel % 4) & 3 == fields[plane, output, ky, kx, channel]


def test_parameter_words():
    data = pack_parameters(bias=np.array([-2, 5, 7]), shift=np.array([1, 2, 3]), multiplier=np.array([9, 10, 65535]), channels=2)
    assert len(data) == 4 * 8
    assert data[:8] == bytes([0xFE, 0xFF, 0xFF, 0xFF, 1, 0, 9, 0])
    assert data[16:24] == bytes([7, 0, 0, 0, 3, 0, 0xFF, 0xFF])
    assert data[24:] == bytes(8)


def test_records():
    codes = np.random.default_rng(2).integers(-128, 128, (4, 5, 10))
    records = np.frombuffer(pack_depthwise_records(codes, config=BASE), dtype=np.int8).reshape(2, 4, 9, 8)
    assert records[1, 3, 0, 1] == codes[3, 3, 9]
    assert records[0, 1, 5, 2] == 0, "kernel column 5 does not exist"
    assert records[0, 1, 4, 2] == codes[1, 4, 2]
    matrix = np.random.default_rng(3).integers(-128, 128, (10, 20))
    records = np.frombuffer(pack_matrix_records(matrix, config=Config(lanes=16, outputs=16)), dtype=np.int8).reshape(1, 4, 9, 16)
    assert records[0, 1, 3, 9] == matrix[9, 11]
    assert not records[0, :, 8].any()


def test_window_pitch_avoids_conflicts():
    for width in range(3, 40):
        assert window_pitch(width=width, banks=7, stride=1, dilation=(1, 1)) % 7 == 2
        assert width <= window_pitch(width=width, banks=7, stride=2, dilation=(1, 1)) < width + 7
        pitch = window_pitch(width=width, banks=4, stride=1, dilation=(1, 1))
        assert len({row * pitch % 4 for row in range(3)}) == 3
