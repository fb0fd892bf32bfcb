// An SDRAM chip, clock edge by clock edge: commands, data with their latencies, and every rule of the datasheet that a controller can break.
//
// At each rising edge of the chip's clock call clock() with the levels on the pins just before it; from then on dq() is what the chip puts on the
// data pins for the next edge. A rule that is broken is noted in `violations`, and the chip goes on as if it had been kept.
// Not modelled, and noted as violations: interleaved and full-page bursts, a low CKE after power-up.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace tercel {

struct SdramPins {
    bool cke = true, cs_n = true, ras_n = true, cas_n = true, we_n = true, dq_oe = false;
    uint32_t ba = 0, a = 0, dqm = 0, dq_o = 0;  // dq_oe: the controller drives dq_o
};

// `parameter` is the rule; `needed` and `had` are its figures, cycles for times and counts or states (0, 1) otherwise.
struct SdramViolation {
    uint64_t cycle;
    std::string command, parameter;
    int64_t needed, had;

    std::string describe() const {
        std::ostringstream text;
        text << "cycle=" << cycle << " command=" << command << " parameter=" << parameter << " needed=" << needed << " had=" << had;
        return text.str();
    }
};

class SdramModel {
  public:
    enum Command : unsigned { kMode, kRefresh, kPrecharge, kActivate, kWrite, kRead, kTerminate, kNop, kCommands };

    // The chip's contents: byte i of word `column` of row `row` of bank `bank` is number ((row * banks + bank) * columns + column) * width + i.
    // Noise until it is written.
    std::vector<uint8_t> bytes;
    std::vector<SdramViolation> violations;  // the first kKept
    uint64_t violation_count = 0, cycle = 0;
    std::array<uint64_t, kCommands> commands{};  // given so far
    uint64_t words_read = 0, words_written = 0;

    // `figures` are "name=value" with blanks between: those of SdramChip and SdramTiming, times in ns, and clock_mhz and cas (the least latency).
    explicit SdramModel(const std::string& figures) {
        std::istringstream stream(figures);
        for (std::string pair; stream >> pair;) {
            const size_t equals = pair.find('=');
            values[pair.substr(0, equals)] = std::strtod(pair.c_str() + equals + 1, nullptr);
        }
        banks = static_cast<unsigned>(figure("banks"));
        rows = static_cast<unsigned>(figure("rows"));
        columns = static_cast<unsigned>(figure("columns"));
        width = static_cast<unsigned>(figure("width"));
        least_cas = static_cast<unsigned>(figure("cas"));
        rcd = cycles("rcd"), rp = cycles("rp"), ras = cycles("ras"), rc = cycles("rc"), rrd = cycles("rrd"), rfc = cycles("rfc");
        wr = cycles("wr"), power_up = cycles("power_up"), mrd = static_cast<int64_t>(figure("mrd_cycles"));
        ras_max = most_cycles("ras_max"), retention = most_cycles("retention");
        refreshed.assign(static_cast<size_t>(figure("refreshes")), 0);
        gap_max = kGap * retention / static_cast<int64_t>(refreshed.size());
        bytes.resize(size_t(banks) * rows * columns * width);
        uint64_t noise = 0x9E3779B97F4A7C15ull;
        for (uint8_t& byte : bytes) {
            noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
            byte = static_cast<uint8_t>(noise >> 32);
        }
    }

    // One rising edge.
    void clock(const SdramPins& pins) {
        check_data_pins(pins);
        const unsigned command = pins.cs_n ? unsigned(kNop) : pins.ras_n << 2 | pins.cas_n << 1 | pins.we_n;
        if (!pins.cke && now() >= power_up) violate(command, "cke", 1, 0);
        commands[command]++;
        if (command < kTerminate) check_pauses(command);
        switch (command) {
            case kMode: set_mode(pins); break;
            case kRefresh: refresh(); break;
            case kPrecharge: precharge(pins); break;
            case kActivate: activate(pins); break;
            case kWrite:
            case kRead: begin(command, pins); break;
            case kTerminate: interrupt(command); break;
            default: break;
        }
        move_word(pins);
        check_refresh();
        drove = drives_now;
        const Word& next = words[(cycle + 1) % kWords];
        drives_now = false;
        // DQM switches the outputs off, byte by byte, two edges later; a byte that is off reads as noise.
        data_now = noise();
        for (unsigned i = 0; next.edge == cycle + 1 && i < width; i++) {
            if (mask_before >> i & 1) continue;
            data_now = (data_now & ~(0xFFu << 8 * i)) | (next.data & 0xFFu << 8 * i);
            drives_now = true;
        }
        mask_before = pins.dqm;
        cycle++;
    }

    // What the chip drives for the next edge; noise if it drives nothing.
    uint32_t dq() const { return data_now; }
    bool drives() const { return drives_now; }

    static const char* name(unsigned command) {
        static const char* const names[] = {"MODE", "REFRESH", "PRECHARGE", "ACTIVATE", "WRITE", "READ", "TERMINATE", "NOP"};
        return names[command];
    }

  private:
    static constexpr size_t kKept = 1000, kWords = 8;
    static constexpr int64_t kGap = 9;  // refresh periods between two refreshes at most: eight may be put off
    static constexpr int64_t kNever = -(int64_t(1) << 60);
    static constexpr unsigned kAllBanks = 1 << 10, kSingleWrites = 1 << 9, kInterleaved = 1 << 3, kFirstRefreshes = 8;

    struct Bank {
        bool open = false, overdue = false, closes = false;  // closes: after its burst, by itself
        unsigned row = 0;
        int64_t activated = kNever, precharged = kNever, written = kNever;
    };
    struct Burst {
        bool write = false;
        unsigned bank = 0, row = 0, column = 0, length = 1, done = 0, left = 0;
    };
    struct Word {
        uint64_t edge = 0;  // for which the chip drives it
        uint32_t data = 0;
    };

    double figure(const char* key) const {
        const auto found = values.find(key);
        if (found == values.end()) {
            std::fprintf(stderr, "SDRAM figures lack %s\n", key);
            std::exit(2);
        }
        return found->second;
    }
    // A thousandth of a cycle is forgiven: clocks are rounded.
    int64_t cycles(const char* key) const { return static_cast<int64_t>(std::ceil(figure(key) * figure("clock_mhz") / 1000 - 1e-3)); }
    int64_t most_cycles(const char* key) const { return static_cast<int64_t>(std::floor(figure(key) * figure("clock_mhz") / 1000 + 1e-3)); }
    int64_t now() const { return static_cast<int64_t>(cycle); }
    uint32_t noise() const {
        const uint64_t mixed = (cycle + 1) * 0x9E3779B97F4A7C15ull;
        return static_cast<uint32_t>(mixed >> 29) & (0xFFFFFFFFu >> (32 - 8 * width));
    }

    void violate(unsigned command, const char* parameter, int64_t needed, int64_t had) {
        violation_count++;
        if (violations.size() < kKept) violations.push_back({cycle, name(command), parameter, needed, had});
    }
    void at_least(unsigned command, const char* parameter, int64_t needed, int64_t since) {
        if (now() - since < needed) violate(command, parameter, needed, now() - since);
    }

    void check_data_pins(const SdramPins& pins) {
        if (!pins.dq_oe) return;
        if (drives_now) violate(kNop, "contention", 0, 1);
        // The chip lets go of the pins only some time after the edge for which it drove them.
        else if (drove) violate(kNop, "turnaround", 1, 0);
    }

    void check_pauses(unsigned command) {
        if (now() < power_up) violate(command, "power_up", power_up, now());
        at_least(command, "rfc", rfc, last_refresh);
        at_least(command, "mrd", mrd, last_mode);
    }
    void check_all_closed(unsigned command) {
        if (!all_precharged) violate(command, "precharge_all", 1, 0);
        int64_t last = kNever;
        for (const Bank& bank : banks_state) {
            if (bank.open) violate(command, "closed", 0, 1);
            last = std::max(last, bank.precharged);
        }
        at_least(command, "rp", rp, last);
    }

    void set_mode(const SdramPins& pins) {
        check_all_closed(kMode);
        const unsigned length = pins.a & 7, latency = pins.a >> 4 & 7;
        if (length > 3) violate(kMode, "burst_length", 3, length);
        if (pins.a & kInterleaved) violate(kMode, "sequential", 0, 1);
        if (latency < 2 || latency > 3 || latency < least_cas) violate(kMode, "cas", least_cas, latency);
        burst_length = 1u << (length & 3);
        write_length = pins.a & kSingleWrites ? 1 : burst_length;
        cas = latency < 2 || latency > 3 ? least_cas : latency;
        last_mode = now();
        mode_set = true;
    }

    void refresh() {
        check_all_closed(kRefresh);
        last_refresh = now();
        refreshed[refresh_count++ % refreshed.size()] = now();
        late = false;
    }

    void precharge(const SdramPins& pins) {
        const bool all = pins.a & kAllBanks;
        all_precharged |= all;
        for (unsigned i = 0; i < banks; i++) {
            if (!all && i != pins.ba) continue;
            Bank& bank = banks_state[i];
            if (bank.closes) violate(kPrecharge, "closes", 0, 1);
            bank.closes = false;
            if (bank.open) {
                at_least(kPrecharge, "ras", ras, bank.activated);
                at_least(kPrecharge, "wr", wr, burst.write && burst.left && burst.bank == i ? now() : bank.written);
                bank.precharged = now();
            } else if (all) {
                bank.precharged = std::max(bank.precharged, now());
            }
            bank.open = false;
            if (burst.bank == i) burst.left = 0;
        }
    }

    void activate(const SdramPins& pins) {
        if (!mode_set) violate(kActivate, "mode", 1, 0);
        if (refresh_count < kFirstRefreshes) violate(kActivate, "first_refreshes", kFirstRefreshes, static_cast<int64_t>(refresh_count));
        if (pins.ba >= banks || pins.a >= rows) return violate(kActivate, "row", rows - 1, pins.a);
        Bank& bank = banks_state[pins.ba];
        if (bank.open) violate(kActivate, "closed", 0, 1);
        at_least(kActivate, "rp", rp, bank.precharged);
        at_least(kActivate, "rc", rc, bank.activated);
        for (const Bank& other : banks_state)
            if (&other != &bank) at_least(kActivate, "rrd", rrd, other.activated);
        bank.open = true;
        bank.overdue = false;
        bank.row = pins.a;
        bank.activated = now();
        bank.written = kNever;
    }

    void begin(unsigned command, const SdramPins& pins) {
        const unsigned column = pins.a & (kAllBanks - 1);
        if (pins.ba >= banks || column >= columns) return violate(command, "column", columns - 1, column);
        Bank& bank = banks_state[pins.ba];
        if (!bank.open) return violate(command, "open", 1, 0);
        if (bank.closes) return violate(command, "closes", 0, 1);
        at_least(command, "rcd", rcd, bank.activated);
        interrupt(command);
        burst.write = command == kWrite;
        burst.bank = pins.ba;
        burst.row = bank.row;
        burst.column = column;
        burst.length = burst.left = burst.write ? write_length : burst_length;
        burst.done = 0;
        bank.closes = pins.a & kAllBanks;
    }

    void move_word(const SdramPins& pins) {
        if (!burst.left) return;
        const unsigned wrap = burst.length - 1, column = (burst.column & ~wrap) | ((burst.column + burst.done) & wrap);
        uint8_t* word = &bytes[((size_t(burst.row) * banks + burst.bank) * columns + column) * width];
        if (burst.write) {
            if (!pins.dq_oe) violate(kWrite, "driven", 1, 0);
            for (unsigned i = 0; i < width; i++)
                if (!(pins.dqm >> i & 1)) word[i] = static_cast<uint8_t>(pins.dq_o >> 8 * i);
            banks_state[burst.bank].written = now();
            words_written++;
        } else {
            Word& out = words[(cycle + cas) % kWords];
            out = {cycle + cas, 0};
            for (unsigned i = 0; i < width; i++) out.data |= uint32_t(word[i]) << 8 * i;
            words_read++;
        }
        burst.done++;
        burst.left--;
        if (!burst.left) close_by_itself(now() + 1);
    }

    // The burst under way ends before its last word.
    void interrupt(unsigned command) {
        if (!burst.left) return;
        burst.left = 0;
        if (command == kTerminate && banks_state[burst.bank].closes) violate(command, "closes", 0, 1);
        close_by_itself(now());
    }

    // As if PRECHARGE came at the first edge from `edge` on at which it may.
    void close_by_itself(int64_t edge) {
        Bank& bank = banks_state[burst.bank];
        if (!bank.closes) return;
        bank.open = bank.closes = false;
        bank.precharged = std::max({edge, bank.written + wr, bank.activated + ras});
    }

    void check_refresh() {
        for (Bank& bank : banks_state)
            if (bank.open && !bank.overdue && now() - bank.activated > ras_max) {
                bank.overdue = true;
                violate(kNop, "ras_max", ras_max, now() - bank.activated);
            }
        if (!mode_set || late) return;
        const size_t count = refreshed.size();
        const int64_t oldest = refresh_count < count ? refreshed[0] : refreshed[refresh_count % count];
        const int64_t gap = now() - last_refresh;
        if (gap > gap_max) violate(kNop, "refresh", gap_max, gap), late = true;
        else if (now() - oldest > retention) violate(kNop, "retention", retention, now() - oldest), late = true;
    }

    std::map<std::string, double> values;
    unsigned banks, rows, columns, width, least_cas, cas = 2, burst_length = 1, write_length = 1;
    int64_t rcd, rp, ras, rc, rrd, rfc, wr, mrd, power_up, ras_max, retention, gap_max;
    std::array<Bank, 4> banks_state;
    Burst burst;
    std::array<Word, kWords> words;
    bool drives_now = false, drove = false, mode_set = false, all_precharged = false, late = false;
    uint32_t data_now = 0, mask_before = 0;
    int64_t last_refresh = kNever, last_mode = kNever;
    uint64_t refresh_count = 0;
    std::vector<int64_t> refreshed;  // edges of the last refreshes
};

}  // namespace tercel
