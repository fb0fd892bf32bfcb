"""A machine behind the link for tests: registers that remember, and a memory."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class PlainMachine:
    """1024 registers that hold what was written, and memory."""

    memory: bytearray
    registers: dict[int, int] = field(default_factory=dict)
    writes: int = 0

    def read_csr(self, address: int) -> int:
        return self.registers.get(address, 0)

    def write_csr(self, address: int, value: int) -> None:
        self.writes += 1
        self.registers[address] = value
