"""The SDRAM chips of the boards. Where makers and speed grades differ, the slowest figure stands, so that either part works."""

from tercel.hw.sdram.timing import SdramChip, SdramError, SdramTiming

IS42S16160G = SdramChip(
    name="IS42S16160G-7",
    banks=4,
    rows=8192,
    columns=512,
    width=2,
    refreshes=8192,
    timing=SdramTiming(rcd=20.0, rp=20.0, ras=45.0, rc=67.5, rrd=15.0, rfc=70.0, wr=20.0, cas=((100.0, 2), (133.0, 3))),
)
"""ULX3S and iCESugar-pro: 32 MB, 16 bits. ISSI IS42S16160G (and B) in grade -7, or Winbond W9825G6KH-6, which is faster."""

EM638325 = SdramChip(
    name="EM638325-6",
    banks=4,
    rows=2048,
    columns=256,
    width=4,
    refreshes=4096,
    timing=SdramTiming(rcd=18.0, rp=18.0, ras=42.0, rc=60.0, rrd=12.0, rfc=60.0, wr=15.0, cas=((100.0, 2), (166.0, 3))),
)
"""Colorlight i5 and i9: 8 MB, 32 bits. Etron EM638325-6, or ESMT M12L64322A-6."""

GW2AR18 = SdramChip(
    name="GW2AR-18",
    banks=4,
    rows=2048,
    columns=256,
    width=4,
    refreshes=4096,
    timing=SdramTiming(rcd=20.0, rp=20.0, ras=45.0, rc=65.0, rrd=15.0, rfc=70.0, wr=20.0, cas=((100.0, 2), (133.0, 3))),
)
"""Tang Nano 20K: 8 MB, 32 bits, in the package of the GW2AR-18 (the 64 Mbit die of grade -6; taken as one of grade -7)."""

CHIPS = {"is42s16160g": IS42S16160G, "em638325": EM638325, "gw2ar18": GW2AR18}


def named_chip(name: str) -> SdramChip:
    """The chip people call by ``name``; :class:`SdramError` lists the names when there is none."""
    try:
        return CHIPS[name]
    except KeyError:
        raise SdramError(f"chip must be one of {', '.join(CHIPS)}, not {name!r} (or describe it as an SdramChip)") from None
