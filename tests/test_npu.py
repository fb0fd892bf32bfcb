"""The top and its Verilog."""

import re

from tercel.hw.config import BASE, TINY
from tercel.hw.npu import counter_names
from tercel.hw.verilog import TOP, verilog


def test_verilog() -> None:
    """The ports of the smallest machine, and nothing about the computer that made it."""
    text = verilog(TINY)
    header = re.search(rf"^module {TOP}\(([^)]*)\);", text, re.MULTILINE)
    assert header is not None
    bus = ["adr", "dat_w", "dat_r", "sel", "we", "cyc", "stb", "stall", "ack", "err"]
    expected = {"clk", "rst", "interrupt", *(f"{port}__{member}" for port in ("memory", "csr") for member in bus)}
    assert set(re.findall(r"\w+", header[1])) == expected
    assert re.search(r"^  output \[30:0\] memory__adr;$", text, re.MULTILINE)
    assert "src =" not in text
    assert ".py" not in text


def test_counter_names() -> None:
    """Names are unique, the machine's come first, and each engine that exists ends with what its queue does."""
    for config, engines in ((BASE, ["load", "array", "depthwise", "store"]), (TINY, ["load", "array", "store"])):
        names = counter_names(config)
        assert len(set(names)) == len(names)
        assert names[:3] == ("machine.cycles", "memory.read", "memory.write")
        assert list(dict.fromkeys(name.split(".")[0] for name in names[3:])) == engines
        for engine in engines:
            own = [name.split(".")[1] for name in names if name.startswith(f"{engine}.")]
            assert own[-3:] == ["token", "fence", "idle"]
            assert len(own) > 3
