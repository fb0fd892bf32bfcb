"""Assembly text: what is disassembled assembles to the same words, and wrong lines say what is wrong."""

import re

import numpy as np
import pytest

from tercel.hw.config import BASE
from tercel.hw.isa import FIELDS, Engine, Opcode, encode
from tercel.sw.assembly import AssemblyError, assemble, disassemble
from tercel.sw.random_program import random_program


def test_text_of_an_instruction():
    word = encode(Opcode.ARRAY, {"wait": 1 << Engine.LOAD | 1 << Engine.STORE, "post": 1 << Engine.STORE, "x_start": -1, "rows": 6})
    assert disassemble([word, encode(Opcode.HALT, {})]) == "ARRAY wait=LOAD|STORE post=STORE x_start=-1 rows=6  # 0\nHALT  # 1\n"
    assert assemble("# a comment\n\n ARRAY post=STORE rows=0x6 wait=LOAD|STORE x_start=-1\nHALT # end") == [word, encode(Opcode.HALT, {})]


@pytest.mark.parametrize("opcode", Opcode)
def test_round_trip_of_random_fields(opcode):
    random = np.random.default_rng(opcode)
    for _ in range(50):
        values = {}
        for field in FIELDS[opcode]:
            if field.name != "opcode" and random.integers(2):
                low = -(1 << field.shape.width - 1) if field.shape.signed else 0
                values[field.name] = int(random.integers(low, low + (1 << field.shape.width)))
        word = encode(opcode, values)
        assert assemble(disassemble([word])) == [word]


def test_round_trip_of_programs_and_of_any_words():
    words = list(random_program(BASE, seed=3).program.words)
    random = np.random.default_rng(0)
    words += [int.from_bytes(random.bytes(80), "little") for _ in range(50)] + [0]
    assert assemble(disassemble(words)) == words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("JUMP", "opcode must be one of HALT, SYNC, LOAD, STORE, ARRAY, DEPTHWISE, not 'JUMP'"),
        ("SYNC engine", "SYNC operands must be field=value, not 'engine'"),
        ("SYNC rows=1", "SYNC has no field 'rows' (its fields: wait, post, fence, engine)"),
        ("SYNC opcode=1", "SYNC has no field 'opcode' (its fields: wait, post, fence, engine)"),
        ("SYNC engine=1 engine=2", "SYNC.engine must be given once, not twice"),
        ("SYNC engine=x", "SYNC.engine must be a whole number, not 'x'"),
        ("SYNC wait=LOAD|DMA", "SYNC.wait must be engines of LOAD, ARRAY, DEPTHWISE, STORE joined by |, not 'LOAD|DMA'"),
        ("SYNC engine=4", "SYNC.engine must be in 0..3, not 4 (the engine whose queue this goes through)"),
        ("DEPTHWISE z_in=-257", "DEPTHWISE.z_in must be in -256..255, not -257 (input zero point, fed for padding)"),
        (".word", ".word must have one value, not 0"),
        (".word -1", ".word must be in 0..2**640-1, not -1"),
    ],
)
def test_errors_name_line_field_and_limit(line, message):
    with pytest.raises(AssemblyError, match=f"^{re.escape('line 3: ' + message)}$"):
        assemble(f"HALT\n\n{line}\n")
