"""The instruction tables: encoding, their errors, and the reference page made from them."""

import re
from pathlib import Path

import numpy as np
import pytest

from tercel.hw.isa import FIELDS, INSTRUCTION_BITS, LAYOUTS, RESERVED_LOW, Fault, IsaError, Opcode, decode, encode
from tercel.sw.reference_page import reference_page

PAGE = Path(__file__).parents[1] / "docs" / "isa.md"


@pytest.mark.parametrize("opcode", Opcode)
def test_encoder_agrees_with_the_gateware_layout(opcode):
    random = np.random.default_rng(opcode)
    layout = LAYOUTS[opcode]
    assert layout.size == RESERVED_LOW[opcode] <= INSTRUCTION_BITS
    for _ in range(20):
        values = {}
        for field in FIELDS[opcode]:
            low = -(1 << field.shape.width - 1) if field.shape.signed else 0
            values[field.name] = int(random.integers(low, low + (1 << field.shape.width)))
        values["opcode"] = int(opcode)
        word = encode(opcode, {name: value for name, value in values.items() if name != "opcode"})
        assert word == layout.const(values).as_bits()
        assert decode(word) == (opcode, values)


def test_errors():
    with pytest.raises(IsaError, match=r"^SYNC\.engine must be in 0\.\.3, not 4 \(the engine whose queue this goes through\)$"):
        encode(Opcode.SYNC, {"engine": 4})
    with pytest.raises(IsaError, match=r"^ARRAY\.offset must be in -512\.\.511, not 512 \(factor of the sum of activations: .*\)$"):
        encode(Opcode.ARRAY, {"offset": 512})
    with pytest.raises(IsaError, match=r"^HALT has no field 'rows' \(its fields: opcode, wait, post, fence\)$"):
        encode(Opcode.HALT, {"rows": 1})
    message = "opcode must be one of 1 HALT, 2 SYNC, 3 LOAD, 4 STORE, 5 ARRAY, 6 DEPTHWISE, not 0"
    with pytest.raises(IsaError, match=f"^{re.escape(message)}$"):
        decode(0)
    with pytest.raises(IsaError, match=r"^HALT must be 0 from bit 13 on, not 0x1$"):
        decode(int(Opcode.HALT) | 1 << 13)


def test_reference_page_is_current():
    assert PAGE.read_text() == reference_page(), "run: tercel isa > docs/isa.md"


def test_reference_page_has_every_field_and_fault():
    page = reference_page()
    for opcode in Opcode:
        section = page.split(f"## {opcode.name}\n")[1].split("\n## ")[0]
        assert re.findall(r"\| `(\w+)` \|", section) == [field.name for field in FIELDS[opcode]]
    for fault in Fault:
        assert f"| {fault.value} | {fault.name} |" in page
