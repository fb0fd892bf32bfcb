"""The chip's model: what it does when all rules are kept, and that it notices each one that is not."""

from dataclasses import replace

import pytest

from tercel.hw.sdram.chips import IS42S16160G
from tercel.hw.sdram.pins import ALL_BANKS, Command
from tercel.sim.soc.sdram_model import SdramLevels, SdramModel

CHIP = replace(IS42S16160G, timing=replace(IS42S16160G.timing, power_up=200.0))
RCD, RP, RAS, RC, RRD, RFC, WR, MRD, CAS = 2, 2, 5, 7, 2, 7, 2, 2, 2
POWER_UP = 20
BURST_OF_4 = 2 | CAS << 4


class Chip:
    """A model that is driven command by command."""

    def __init__(self, chip=CHIP, *, clock_mhz=100.0):
        self.model = SdramModel(chip, clock_mhz=clock_mhz)
        self.seen = []

    def edge(self, command=Command.NOP, **levels):
        """One edge; ``seen`` gets what the chip put on the data pins for it, None if nothing."""
        self.seen.append(self.model.dq if self.model.drives else None)
        pins = {name: int(command) >> bit & 1 for name, bit in (("ras_n", 2), ("cas_n", 1), ("we_n", 0))}
        self.model.clock(SdramLevels(cs_n=0, **pins, **levels))

    def idle(self, edges):
        for _ in range(edges):
            self.edge()

    def initialise(self, mode=BURST_OF_4, refreshes=8):
        self.idle(POWER_UP)
        self.edge(Command.PRECHARGE, a=ALL_BANKS)
        self.idle(RP - 1)
        for _ in range(refreshes):
            self.edge(Command.REFRESH)
            self.idle(RFC - 1)
        self.edge(Command.MODE, a=mode)
        self.idle(MRD - 1)
        return self

    def activate(self, *, bank=0, row=0):
        self.edge(Command.ACTIVATE, ba=bank, a=row)
        self.idle(RCD - 1)

    def write(self, words, *, bank=0, column=0, dqm=(0, 0, 0, 0)):
        for i, word in enumerate(words):
            self.edge(Command.NOP if i else Command.WRITE, ba=bank, a=column, dq_o=word, dq_oe=1, dqm=dqm[i])

    @property
    def broken(self):
        return {(violation.command, violation.parameter, violation.needed, violation.had) for violation in self.model.violations}


@pytest.fixture
def chip():
    return Chip().initialise()


def test_a_lawful_run(chip):
    chip.activate(bank=1, row=5)
    chip.write([0x1111, 0x2222, 0x3333, 0x4444], bank=1, column=8, dqm=(0, 1, 2, 3))
    chip.edge(Command.READ, ba=1, a=8)
    chip.idle(6)
    chip.edge(Command.PRECHARGE, ba=1)
    chip.idle(RP - 1)
    chip.edge(Command.REFRESH)
    assert chip.broken == set()
    start = ((5 * CHIP.banks + 1) * CHIP.columns + 8) * 2
    before = Chip().model.contents
    after = chip.model.contents[start : start + 8].tolist()
    assert after == [0x11, 0x11, int(before[start + 2]), 0x22, 0x33, int(before[start + 5]), *before[start + 6 : start + 8].tolist()]
    words = [after[i] | after[i + 1] << 8 for i in (0, 2, 4, 6)]
    assert chip.seen[-10 : -10 + CAS + 5] == [None, None, *words, None]
    assert chip.model.count(Command.REFRESH) == 9


@pytest.mark.parametrize("cas", [2, 3])
def test_cas_latency(cas):
    chip = Chip().initialise(mode=2 | cas << 4)
    chip.activate()
    first = len(chip.seen)
    chip.edge(Command.READ)
    chip.idle(8)
    assert [seen is not None for seen in chip.seen[first:]] == [i in range(cas, cas + 4) for i in range(9)]


def test_a_burst_wraps(chip):
    chip.activate()
    chip.write([1, 2, 3, 4], column=4)
    chip.edge(Command.READ, a=6)
    chip.idle(6)
    assert chip.seen[-7 + CAS :][:4] == [3, 4, 1, 2]


def test_a_read_ends_another(chip):
    chip.activate()
    chip.write([1, 2, 3, 4], column=4)
    chip.edge(Command.READ, a=4)
    chip.edge()
    chip.edge(Command.READ, a=4)
    chip.idle(6)
    assert [seen for seen in chip.seen if seen is not None] == [1, 2, 1, 2, 3, 4]


def test_a_mask_takes_two_edges_to_blank_a_read(chip):
    chip.activate()
    chip.write([1, 2, 3, 4], column=4)
    chip.edge(Command.READ, a=4)
    chip.edge(dqm=3)
    chip.idle(5)
    assert [seen for seen in chip.seen[-7:] if seen is not None] == [1, 3, 4]


def test_a_bank_closes_by_itself(chip):
    chip.activate(bank=1, row=5)
    chip.idle(RAS)
    chip.edge(Command.READ, ba=1, a=ALL_BANKS)
    chip.idle(4 + RP - 1)
    chip.activate(bank=1, row=6)
    chip.write([1, 2, 3, 4], bank=1, column=4 | ALL_BANKS)
    chip.idle(WR + RP)
    chip.edge(Command.REFRESH)
    chip.idle(RFC)
    chip.activate(bank=1, row=6)
    chip.edge(Command.READ, ba=1, a=4)
    chip.idle(6)
    assert chip.broken == set()
    assert [seen for seen in chip.seen if seen is not None][-4:] == [1, 2, 3, 4]


def test_a_precharge_ends_a_read(chip):
    chip.activate()
    chip.idle(5)
    chip.edge(Command.READ)
    chip.edge(Command.PRECHARGE)
    chip.idle(5)
    assert sum(seen is not None for seen in chip.seen) == 1


def two(first, second, gap, **second_levels):
    """Two commands, ``gap`` edges from one to the other, on an initialised chip."""

    def run(chip):
        chip.edge(first)
        chip.idle(gap - 1)
        chip.edge(second, **second_levels)

    return run


def after_activate(*commands):
    """ACTIVATE of bank 0, and (edges later, command, levels) of others."""

    def run(chip):
        chip.edge(Command.ACTIVATE)
        for gap, command, levels in commands:
            chip.idle(gap - 1)
            chip.edge(command, **levels)

    return run


def write_and_precharge(gap):
    def run(chip):
        chip.activate()
        chip.write([0, 0, 0, 0])
        chip.idle(gap - 1)
        chip.edge(Command.PRECHARGE)

    return run


def written_and_closed(gap):
    """A burst of 4 written to a bank that closes by itself, and ``gap`` edges after its command the bank opened again."""

    def run(chip):
        chip.activate()
        chip.idle(RC)
        chip.edge(Command.WRITE, a=ALL_BANKS, dq_oe=1)
        for _ in range(3):
            chip.edge(dq_oe=1)
        chip.idle(gap - 4)
        chip.edge(Command.ACTIVATE)

    return run


def one_word_and_closed(gap):
    """A burst of 1 read from a bank that closes by itself, and ``gap`` edges after it was opened it is opened again."""

    def run(chip):
        chip.edge(Command.MODE, a=CAS << 4)
        chip.idle(MRD - 1)
        after_activate((RCD, R, {"a": ALL_BANKS}), (gap - RCD, A, {}))(chip)

    return run


def write_after_read(gap):
    def run(chip):
        chip.activate()
        chip.edge(Command.READ)
        chip.idle(gap - 1)
        chip.write([0, 0, 0, 0])

    return run


def undriven_write(chip):
    chip.activate()
    chip.edge(Command.WRITE)


P, A, R, W = Command.PRECHARGE, Command.ACTIVATE, Command.READ, Command.WRITE
RULES = {
    "rcd": (after_activate((RCD - 1, R, {})), ("READ", "rcd", RCD, RCD - 1)),
    "rcd of a write": (after_activate((RCD - 1, W, {"dq_oe": 1})), ("WRITE", "rcd", RCD, RCD - 1)),
    "ras": (after_activate((RAS - 1, P, {})), ("PRECHARGE", "ras", RAS, RAS - 1)),
    "rp": (after_activate((RC, P, {}), (RP - 1, A, {})), ("ACTIVATE", "rp", RP, RP - 1)),
    "rp of a refresh": (after_activate((RC, P, {}), (RP - 1, Command.REFRESH, {})), ("REFRESH", "rp", RP, RP - 1)),
    "rc": (after_activate((RAS - 1, P, {}), (RP, A, {})), ("ACTIVATE", "rc", RC, RC - 1)),
    "rrd": (after_activate((RRD - 1, A, {"ba": 1})), ("ACTIVATE", "rrd", RRD, RRD - 1)),
    "rfc": (two(Command.REFRESH, A, RFC - 1), ("ACTIVATE", "rfc", RFC, RFC - 1)),
    "rfc of a refresh": (two(Command.REFRESH, Command.REFRESH, RFC - 1), ("REFRESH", "rfc", RFC, RFC - 1)),
    "mrd": (two(Command.MODE, A, MRD - 1), ("ACTIVATE", "mrd", MRD, MRD - 1)),
    "wr": (write_and_precharge(WR - 1), ("PRECHARGE", "wr", WR, WR - 1)),
    "wr, all banks": (
        lambda chip: (chip.activate(), chip.idle(3), chip.write([0, 0, 0]), chip.edge(P, a=ALL_BANKS)),
        ("PRECHARGE", "wr", WR, 0),
    ),
    "contention": (write_after_read(CAS), ("NOP", "contention", 0, 1)),
    "turnaround": (write_after_read(CAS + 4), ("NOP", "turnaround", 1, 0)),
    "driven": (undriven_write, ("WRITE", "driven", 1, 0)),
    "open": (lambda chip: chip.edge(R, ba=2), ("READ", "open", 1, 0)),
    "closed": (after_activate((RC, A, {})), ("ACTIVATE", "closed", 0, 1)),
    "closed for a refresh": (after_activate((RC, Command.REFRESH, {})), ("REFRESH", "closed", 0, 1)),
    "closed for the mode": (after_activate((RC, Command.MODE, {"a": BURST_OF_4})), ("MODE", "closed", 0, 1)),
    "a bank that closes by itself": (after_activate((RCD, R, {"a": ALL_BANKS}), (1, R, {})), ("READ", "closes", 0, 1)),
    "one more precharge": (after_activate((RCD, R, {"a": ALL_BANKS}), (1, P, {})), ("PRECHARGE", "closes", 0, 1)),
    "closed by itself": (after_activate((RCD, R, {"a": ALL_BANKS}), (4, R, {})), ("READ", "open", 1, 0)),
    "rp of one closed by itself": (after_activate((RC, R, {"a": ALL_BANKS}), (4 + RP - 1, A, {})), ("ACTIVATE", "rp", RP, RP - 1)),
    "rp of one closed early": (
        after_activate((RC, R, {"a": ALL_BANKS}), (RRD, A, {"ba": 1}), (RCD, R, {"ba": 1}), (1, A, {})),
        ("ACTIVATE", "rp", RP, 5 - 4),
    ),
    "ras of one closed by itself": (one_word_and_closed(RAS + RP - 1), ("ACTIVATE", "rp", RP, RP - 1)),
    "wr of one closed by itself": (written_and_closed(3 + WR + RP - 1), ("ACTIVATE", "rp", RP, RP - 1)),
    "column": (after_activate((RCD, R, {"a": 512})), ("READ", "column", 511, 512)),
    "row": (lambda chip: chip.edge(A, a=8192), ("ACTIVATE", "row", 8191, 8192)),
    "burst length": (lambda chip: chip.edge(Command.MODE, a=7 | CAS << 4), ("MODE", "burst_length", 3, 7)),
    "interleaved": (lambda chip: chip.edge(Command.MODE, a=BURST_OF_4 | 8), ("MODE", "sequential", 0, 1)),
    "no such latency": (lambda chip: chip.edge(Command.MODE, a=2 | 1 << 4), ("MODE", "cas", 2, 1)),
    "cke": (lambda chip: chip.edge(cke=0), ("NOP", "cke", 1, 0)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_noticed(chip, rule):
    run, expected = RULES[rule]
    assert chip.broken == set()
    run(chip)
    assert expected in chip.broken


LAWFUL = {
    "rcd": after_activate((RCD, R, {})),
    "ras, rp and rc": after_activate((RAS, P, {}), (RP, A, {})),
    "rrd": after_activate((RRD, A, {"ba": 1})),
    "rfc": two(Command.REFRESH, A, RFC),
    "mrd": two(Command.MODE, A, MRD, a=0),
    "wr": write_and_precharge(WR),
    "turnaround": write_after_read(CAS + 5),
}


@pytest.mark.parametrize("rule", LAWFUL)
def test_a_rule_that_is_just_kept(rule):
    chip = Chip().initialise()
    LAWFUL[rule](chip)
    assert {parameter for _, parameter, _, _ in chip.broken} <= {"cas"}  # of the mode 0 in "mrd"


def test_a_violation_says_when():
    chip = Chip().initialise()
    cycle = chip.model.cycle
    chip.edge(R)
    (violation,) = chip.model.violations
    assert (violation.cycle, violation.command, violation.parameter) == (cycle, "READ", "open")


@pytest.mark.parametrize(
    ("command", "parameter", "needed", "had"),
    [(P, "power_up", POWER_UP, 3), (A, "mode", 1, 0), (A, "first_refreshes", 8, 0), (Command.MODE, "precharge_all", 1, 0)],
)
def test_use_before_the_initialisation(command, parameter, needed, had):
    chip = Chip()
    chip.idle(3)
    chip.edge(command)
    assert (command.name, parameter, needed, had) in chip.broken


def test_too_few_first_refreshes():
    chip = Chip().initialise(refreshes=7)
    chip.activate()
    assert chip.broken == {("ACTIVATE", "first_refreshes", 8, 7)}


def test_the_fast_clock_wants_the_long_latency():
    chip = Chip(clock_mhz=133.0)
    chip.idle(100)
    chip.edge(Command.MODE, a=BURST_OF_4)
    assert ("MODE", "cas", 3, 2) in chip.broken


def test_a_missing_refresh_is_noticed_once(chip):
    """At most eight refreshes may be put off."""
    period = 64e6 / 8192 / 10
    chip.idle(int(9 * period) - 20)
    assert chip.broken == set()
    chip.idle(200)
    ((command, parameter, needed, had),) = chip.broken
    assert (command, parameter, needed, had) == ("NOP", "refresh", int(9 * period), int(9 * period) + 1)


def test_rows_that_are_refreshed_too_seldom():
    """Each gap is allowed, their sum is not."""
    few = replace(CHIP, refreshes=16, timing=replace(CHIP.timing, retention=16_000.0))
    chip = Chip(few).initialise()
    for _ in range(20):
        chip.edge(Command.REFRESH)
        chip.idle(99)
    assert chip.broken == set()
    for _ in range(20):
        chip.edge(Command.REFRESH)
        chip.idle(104)
    assert {(command, parameter, needed) for command, parameter, needed, _ in chip.broken} == {("NOP", "retention", 1600)}


def test_a_row_that_is_open_too_long():
    chip = Chip(replace(CHIP, timing=replace(CHIP.timing, ras_max=1000.0))).initialise()
    chip.activate()
    chip.idle(120)
    assert chip.broken == {("NOP", "ras_max", 100, 101)}


def test_what_was_never_written_is_noise():
    contents = Chip().model.contents
    assert 120 < contents[:100_000].mean() < 135
