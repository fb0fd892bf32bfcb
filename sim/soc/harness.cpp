// Main program around the Verilated system: a serial line at its pads, and, with TERCEL_SDRAM, a memory chip at its pins.
//
// Arguments: clock cycles a bit, registers between chip and pins, figures of the chip. Requests come on standard input, answers go to
// standard output, numbers in the machine's own byte order. A request is one letter and
//   w  uint32 size, bytes       put bytes on the line behind those that still wait; no answer
//   r  uint64 limit             run until a burst of bytes has come from the machine, or limit cycles have passed without; answer: size, bytes
//   m  uint64 address, size     answer: those bytes of the chip
//   p  uint64 address, size, bytes   put them into the chip past its pins; no answer
//   s                           answer: size, one line of tab separated key=value pairs
// The clock stands still between requests: the same requests make the same run.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#if TERCEL_SDRAM
#include "sdram_model.hpp"
#endif

// Verilator spells a double underscore inside a name ___05F.
#define PAD(member) top->pads___05F##member
#define PIN(member) top->pads___05Fsdram___05F##member

namespace {

constexpr unsigned kBits = 10;         // on the line, for a byte
constexpr size_t kBurst = 1 << 16;     // bytes after which an answer is given in any case
constexpr unsigned kQuiet = 2 * kBits;  // bits without a start bit that end a burst

class Sender {
  public:
    std::deque<uint8_t> bytes;

    bool level(unsigned divider) {
        if (!left) {
            if (bytes.empty()) return true;
            shift = bytes.front() << 1 | 1u << 9;
            bytes.pop_front();
            left = kBits * divider;
        }
        return shift >> ((kBits * divider - left--) / divider) & 1;
    }
    bool busy() const { return left || !bytes.empty(); }

  private:
    unsigned shift = 0, left = 0;
};

class Receiver {
  public:
    std::vector<uint8_t> bytes;
    uint64_t framing_errors = 0;
    unsigned quiet = 0;  // cycles

    void sample(bool level, unsigned divider) {
        quiet++;
        if (!counting) {
            if (level) return;
            counting = true;
            count = 0;
        }
        quiet = 0;
        if (count % divider == divider / 2) shift = shift >> 1 | level << (kBits - 1);
        if (++count < kBits * divider - divider / 2 + 1) return;
        counting = false;
        if (shift >> (kBits - 1)) bytes.push_back(static_cast<uint8_t>(shift >> 1));
        else framing_errors++;
        shift = 0;
    }

  private:
    bool counting = false;
    unsigned shift = 0, count = 0;
};

class System {
  public:
    uint64_t cycle = 0;
    Sender sender;
    Receiver receiver;
    const unsigned divider;

    System(unsigned divider, unsigned latency, const char* figures)
        : divider(divider), context(new VerilatedContext), top(new Vtop(context.get()))
#if TERCEL_SDRAM
          , chip(figures), out(latency / 2), back(latency - latency / 2)
#endif
    {
        (void)latency, (void)figures;
        PAD(rx) = 1;
        top->reset = 1;
        for (int i = 0; i < 8; i++) tick();
        top->reset = 0;
        for (int i = 0; i < 8; i++) tick();
        receiver.bytes.clear();
        receiver.framing_errors = 0;
    }
    ~System() { top->final(); }

    void tick() {
        PAD(rx) = sender.level(divider);
        top->clk = 0;
        top->eval();
        receiver.sample(PAD(tx), divider);
        if (PAD(ready) && !ready_at) ready_at = cycle;
#if TERCEL_SDRAM
        tercel::SdramPins pins;
        pins.cke = PIN(cke), pins.cs_n = PIN(cs_n), pins.ras_n = PIN(ras_n), pins.cas_n = PIN(cas_n), pins.we_n = PIN(we_n);
        pins.ba = PIN(ba), pins.a = PIN(a), pins.dqm = PIN(dqm), pins.dq_o = PIN(dq_o), pins.dq_oe = PIN(dq_oe);
        out.push_back(pins);
        chip.clock(out.front());
        out.pop_front();
        back.push_back(chip.dq());
#endif
        top->clk = 1;
        top->eval();
#if TERCEL_SDRAM
        PIN(dq_i) = back.front();
        back.pop_front();
#endif
        cycle++;
    }

    // A burst begins with its first byte and ends when the line has been quiet for a while.
    void run(uint64_t limit) {
        while (sender.busy()) tick();
        const uint64_t end = cycle + limit;
        while (receiver.bytes.empty() && cycle < end) tick();
        while (!receiver.bytes.empty() && receiver.quiet < kQuiet * divider && receiver.bytes.size() < kBurst) tick();
    }

    std::string statistics() const {
        auto pair = [](const char* key, uint64_t value) { return std::string(key) + "=" + std::to_string(value) + "\t"; };
        std::string text = pair("cycles", cycle) + pair("ready", ready_at) + pair("framing_errors", receiver.framing_errors);
#if TERCEL_SDRAM
        text += pair("words_read", chip.words_read) + pair("words_written", chip.words_written) + pair("violations", chip.violation_count);
        text += "violation=" + (chip.violations.empty() ? std::string() : chip.violations.front().describe());
        for (char& character : text)
            if (character == '\n') character = ' ';
#endif
        return text;
    }

    // Of the chip, `size` of them.
    uint8_t* memory(uint64_t address, uint64_t size) {
#if TERCEL_SDRAM
        if (size <= chip.bytes.size() && address <= chip.bytes.size() - size) return chip.bytes.data() + address;
#else
        (void)address, (void)size;
#endif
        std::exit(2);
    }

  private:
    std::unique_ptr<VerilatedContext> context;
    std::unique_ptr<Vtop> top;
    uint64_t ready_at = 0;
#if TERCEL_SDRAM
    tercel::SdramModel chip;
    std::deque<tercel::SdramPins> out;  // registers of the board, on the way out and back
    std::deque<uint32_t> back;
#endif
};

template <typename Number>
Number read_number() {
    Number number;
    if (std::fread(&number, sizeof number, 1, stdin) != 1) std::exit(0);
    return number;
}

void write_answer(const void* bytes, size_t size) {
    const uint32_t header = static_cast<uint32_t>(size);
    std::fwrite(&header, sizeof header, 1, stdout);
    std::fwrite(bytes, 1, size, stdout);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    System system(static_cast<unsigned>(std::atoi(argv[1])), static_cast<unsigned>(std::atoi(argv[2])), argv[3]);
    for (int letter; (letter = std::getchar()) != EOF;) {
        if (letter == 'w') {
            for (uint32_t size = read_number<uint32_t>(); size; size--) system.sender.bytes.push_back(static_cast<uint8_t>(std::getchar()));
        } else if (letter == 'r') {
            system.run(read_number<uint64_t>());
            write_answer(system.receiver.bytes.data(), system.receiver.bytes.size());
            system.receiver.bytes.clear();
        } else if (letter == 'm') {
            const uint64_t address = read_number<uint64_t>(), size = read_number<uint64_t>();
            write_answer(system.memory(address, size), size);
        } else if (letter == 'p') {
            const uint64_t address = read_number<uint64_t>(), size = read_number<uint64_t>();
            if (std::fread(system.memory(address, size), 1, size, stdin) != size) return 2;
        } else if (letter == 's') {
            const std::string text = system.statistics();
            write_answer(text.data(), text.size());
        } else {
            return 2;
        }
    }
    return 0;
}
