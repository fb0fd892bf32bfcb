"""How beats of the memory port lie in an SDRAM chip."""

from dataclasses import dataclass

from amaranth.hdl import unsigned
from amaranth.lib import data
from amaranth.utils import exact_log2

from tercel.hw.sdram.timing import SdramChip, SdramError

PORTS = 2
NPU, HOST = range(PORTS)


@dataclass(frozen=True, kw_only=True)
class BeatGeometry:
    """A beat's address, from its lowest bits: offset in the row, bank, row. So a long run of beats goes from bank to bank.

    Parameters
    ----------
    chip
        That holds the beats.
    memory_width
        Bytes of a beat.
    addr_width
        Bits of a beat's address on the port; those above :attr:`addr_bits` must be 0.
    """

    chip: SdramChip
    memory_width: int
    addr_width: int

    def __post_init__(self) -> None:
        widths = tuple(width for width in (1, 2, 4, 8, 16) if width <= 8 * self.chip.width)
        if self.memory_width not in widths:
            raise SdramError(
                f"memory_width must be one of {', '.join(map(str, widths))} for {self.chip.name}, not {self.memory_width!r} "
                f"(a beat is at most a burst of 8 words)"
            )
        if self.addr_width < self.addr_bits:
            raise SdramError(
                f"addr_width must be at least {self.addr_bits} for {self.chip.name}, not {self.addr_width} (or part of the chip is lost)"
            )

    @property
    def words(self) -> int:
        """Words of the chip in a beat: the length of a burst."""
        return max(1, self.memory_width // self.chip.width)

    @property
    def lanes(self) -> int:
        """Beats in a word of the chip, in a chip wider than the port; the other lanes of a word are masked."""
        return max(1, self.chip.width // self.memory_width)

    @property
    def offset_bits(self) -> int:
        """Of a beat in its row."""
        return exact_log2(self.chip.columns * self.chip.width // self.memory_width)

    @property
    def bank_bits(self) -> int:
        """1 or 2."""
        return exact_log2(self.chip.banks)

    @property
    def row_bits(self) -> int:
        """11 to 13."""
        return exact_log2(self.chip.rows)

    @property
    def addr_bits(self) -> int:
        """Of a beat in the chip."""
        return self.offset_bits + self.bank_bits + self.row_bits

    @property
    def location_layout(self) -> data.StructLayout:
        """What a beat needs before its data can move: ``row`` open in ``bank``, unless it lies past the chip (``bad``)."""
        return data.StructLayout({"bank": unsigned(self.bank_bits), "bad": unsigned(1), "row": unsigned(self.row_bits)})

    @property
    def transfer_layout(self) -> data.StructLayout:
        """What a beat is once its row is open."""
        return data.StructLayout(
            {
                "bank": unsigned(self.bank_bits),
                "bad": unsigned(1),
                "offset": unsigned(self.offset_bits),
                "port": unsigned(1),
                "we": unsigned(1),
                "sel": unsigned(self.memory_width),
                "data": unsigned(8 * self.memory_width),
            }
        )

    @property
    def request_layout(self) -> data.StructLayout:
        """All of a beat."""
        return data.StructLayout({**{name: field.shape for name, field in self.transfer_layout}, "row": unsigned(self.row_bits)})

    @property
    def answer_layout(self) -> data.StructLayout:
        """What is left of a beat when it is answered; ``lane`` is the part of the chip's word that it is."""
        return data.StructLayout({"valid": unsigned(1), "port": unsigned(1), "bad": unsigned(1), "lane": unsigned(exact_log2(self.lanes))})
