// Main program around the Verilated accelerator: a memory, a CSR driver and a loop that runs jobs until standard input ends.
//
// A job is one line of key=value pairs, separated by tabs, and then `memory_bytes` bytes, the memory from address 0 on. The answer is any number of
// `progress` lines, one `result` line, both of key=value pairs (all fields are separated by tabs), and the memory after the run.
//
// Cycle t: inputs change while the clock is low, the model settles, outputs are sampled, the clock rises.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

// Verilator spells a double underscore inside a name ___05F.
#define MEMORY(member) top->memory___05F##member
#define CSR(member) top->csr___05F##member

namespace {

constexpr unsigned kWidth = TERCEL_MEMORY_WIDTH;  // bytes of a memory word
constexpr unsigned kOutstanding = 16;             // transfers the master may have under way
constexpr uint64_t kCsrLimit = 1000;              // cycles a CSR access may take
constexpr unsigned kCounterMax = 224;             // counters the CSR space has room for
constexpr unsigned kCounterDrain = 256;           // cycles after which the last event is in its counter
constexpr unsigned kPollInterval = 8;             // cycles between two reads of STATUS

enum Register : uint32_t {
    kControl = 0x0C, kStatus = 0x10, kFaultIndex = 0x14, kProgramBase = 0x18, kCounterCount = 0x30, kCounters = 0x80
};

struct Job {
    std::map<std::string, std::string> values;

    uint64_t number(const char* key) const {
        auto found = values.find(key);
        if (found == values.end()) {
            std::fprintf(stderr, "job lacks %s\n", key);
            std::exit(2);
        }
        return std::strtoull(found->second.c_str(), nullptr, 10);
    }
    // -1 stands for "none".
    int64_t signed_number(const char* key) const { return static_cast<int64_t>(number_or_minus(key)); }
    std::string text(const char* key) const {
        auto found = values.find(key);
        return found == values.end() ? std::string() : found->second;
    }

  private:
    long long number_or_minus(const char* key) const {
        number(key);
        return std::strtoll(values.at(key).c_str(), nullptr, 10);
    }
};

class Random {
  public:
    explicit Random(uint64_t seed) : state(seed) {}
    // True with probability threshold / 2**32.
    bool below(uint64_t threshold) {
        if (threshold == 0) return false;
        uint64_t z = (state += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return ((z ^ (z >> 31)) >> 32) < threshold;
    }

  private:
    uint64_t state;
};

// Pipelined Wishbone slave. Transfers take effect, in order, when they are answered: a write that was not answered is not in memory.
class Memory {
  public:
    std::vector<uint8_t> bytes;
    std::string violation;
    uint64_t reads = 0, writes = 0;

    explicit Memory(const Job& job)
        : bytes(job.number("memory_bytes")), random(job.number("seed")), latency(job.number("latency")),
          stall_threshold(job.number("stall_threshold")), efficiency(job.number("efficiency")),
          error_address(job.signed_number("error_address")), silent_address(job.signed_number("silent_address")),
          never_answers(job.number("never_answers") != 0), log(job.text("log").empty() ? nullptr : std::fopen(job.text("log").c_str(), "wb")) {}
    ~Memory() { close_log(); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void close_log() {
        if (log) std::fclose(log);
        log = nullptr;
    }

    void drive(Vtop* top, uint64_t cycle) {
        credit = credit + efficiency > 65536 ? 65536 : credit + efficiency;
        stalled = credit < 65536 || random.below(stall_threshold);
        answering = head != tail && queue[head % kQueue].due <= cycle && !silent && !random.below(stall_threshold);
        MEMORY(stall) = stalled;
        MEMORY(ack) = 0;
        MEMORY(err) = 0;
        if (!answering) return;
        const Transfer& transfer = queue[head % kQueue];
        if (holds(transfer.address, silent_address) || never_answers) {
            silent = true;
            answering = false;
        } else if (transfer.address + kWidth > bytes.size() || holds(transfer.address, error_address)) {
            MEMORY(err) = 1;
        } else {
            MEMORY(ack) = 1;
            if (!transfer.write) std::memcpy(&MEMORY(dat_r), &bytes[transfer.address], kWidth);
        }
    }

    void sample(Vtop* top, uint64_t cycle) {
        const bool ack = MEMORY(ack);
        if (answering) {
            const Transfer& transfer = queue[head % kQueue];
            if (ack && transfer.write) {
                for (unsigned i = 0; i < kWidth; i++)
                    if (transfer.sel >> i & 1) bytes[transfer.address + i] = transfer.data[i];
            }
            if (ack) (transfer.write ? writes : reads)++;
            head++;
        }
        if (!MEMORY(cyc)) {
            head = tail;  // the master gave up what was under way
            held = false;
            return;
        }
        Transfer transfer;
        transfer.address = static_cast<uint64_t>(MEMORY(adr)) * kWidth;
        transfer.write = MEMORY(we);
        transfer.sel = MEMORY(sel);
        std::memset(transfer.data, 0, sizeof transfer.data);
        if (transfer.write) std::memcpy(transfer.data, &MEMORY(dat_w), kWidth);
        const bool strobe = MEMORY(stb);
        if (held && !(strobe && same(transfer, waiting))) violation = "a stalled request changed or went away";
        held = strobe && stalled;
        waiting = transfer;
        if (strobe && !stalled) {
            if (tail - head >= kOutstanding) violation = "more than 16 transfers outstanding";
            credit -= 65536;
            transfer.due = cycle + latency;
            queue[tail++ % kQueue] = transfer;
            if (log) {
                const uint64_t record = transfer.address / kWidth << 1 | transfer.write;
                std::fwrite(&record, sizeof record, 1, log);
            }
        }
    }

  private:
    static constexpr unsigned kQueue = 64;
    struct Transfer {
        uint64_t due, address, sel;
        bool write;
        uint8_t data[kWidth < 8 ? 8 : kWidth];
    };

    static bool same(const Transfer& a, const Transfer& b) {
        return a.address == b.address && a.write == b.write && (!a.write || (a.sel == b.sel && !std::memcmp(a.data, b.data, kWidth)));
    }
    static bool holds(uint64_t word, int64_t address) {
        return address >= 0 && word <= static_cast<uint64_t>(address) && static_cast<uint64_t>(address) < word + kWidth;
    }

    Random random;
    uint64_t latency, stall_threshold;
    int64_t efficiency;  // transfers a cycle, in 1/65536
    int64_t credit = 65536;
    int64_t error_address, silent_address;
    bool never_answers;
    FILE* log;  // gets 8 bytes for each transfer accepted: its address in memory words, times two, plus one for a write
    bool silent = false, stalled = false, answering = false, held = false;
    Transfer queue[kQueue], waiting{};
    uint64_t head = 0, tail = 0;
};

class Simulation {
  public:
    explicit Simulation(const std::string& trace_path) : context(new VerilatedContext), top(new Vtop(context.get())) {
#if VM_TRACE
        if (!trace_path.empty()) {
            context->traceEverOn(true);
            trace.reset(new VerilatedVcdC);
            top->trace(trace.get(), 99);
            trace->open(trace_path.c_str());
        }
#endif
        top->clk = 0;
        top->rst = 1;
        CSR(cyc) = CSR(stb) = 0;
        for (int i = 0; i < 4; i++) tick(nullptr);
        top->rst = 0;
        tick(nullptr);  // the shell's register still holds the reset
    }
    ~Simulation() {
        top->final();
#if VM_TRACE
        if (trace) trace->close();
#endif
    }

    void tick(Memory* memory) {
        if (memory)
            memory->drive(top.get(), cycle);
        else
            MEMORY(ack) = MEMORY(err) = 0, MEMORY(stall) = 1;
        top->clk = 0;
        top->eval();
        if (memory) memory->sample(top.get(), cycle);
        csr_ack = CSR(ack);
        csr_stall = CSR(stall);
        csr_data = CSR(dat_r);
        dump(0);
        top->clk = 1;
        top->eval();
        dump(5);
        cycle++;
    }

    // One access through the CSR port; the memory goes on meanwhile. False when it is not answered.
    bool access(Memory* memory, uint32_t address, bool write, uint32_t& value) {
        CSR(cyc) = CSR(stb) = 1;
        CSR(adr) = address / 4;
        CSR(we) = write;
        CSR(sel) = 0xF;
        CSR(dat_w) = write ? value : 0;
        for (uint64_t i = 0; i < kCsrLimit; i++) {
            const bool asked = CSR(stb);
            tick(memory);
            if (asked && !csr_stall) CSR(stb) = 0;
            if (csr_ack) {
                value = csr_data;
                CSR(cyc) = CSR(stb) = 0;
                return true;
            }
        }
        CSR(cyc) = CSR(stb) = 0;
        return false;
    }

    uint64_t cycle = 0;
    std::unique_ptr<VerilatedContext> context;
    std::unique_ptr<Vtop> top;

  private:
    bool csr_ack = false, csr_stall = false;
    uint32_t csr_data = 0;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> trace;
    void dump(unsigned offset) {
        if (trace) trace->dump(cycle * 10 + offset);
    }
#else
    void dump(unsigned) {}
#endif
};

struct Outcome {
    std::string status = "timeout", detail;
    uint64_t cycles = 0;
    uint32_t state = 0, fault = 0, fault_index = 0;
    std::vector<uint32_t> counters;
};

Outcome run(Simulation& simulation, Memory& memory, const Job& job) {
    Outcome outcome;
    bool answered = true;
    auto write = [&](uint32_t address, uint32_t value) { answered = answered && simulation.access(&memory, address, true, value); };
    auto read = [&](uint32_t address) {
        uint32_t value = 0;
        answered = answered && simulation.access(&memory, address, false, value);
        return value;
    };
    static const char* const regions[] = {"program_base", "program_count", "read_base", "read_end", "write_base", "write_end"};
    for (uint32_t i = 0; i < 6; i++) write(kProgramBase + 4 * i, static_cast<uint32_t>(job.number(regions[i])));
    write(kControl, 1);
    const uint64_t start = simulation.cycle, limit = job.number("max_cycles");
    const int64_t stop_after = job.signed_number("stop_after");
    auto shown = std::chrono::steady_clock::now();
    const bool progress = job.number("progress") != 0;
    uint64_t next_look = 16384;
    while (answered && memory.violation.empty() && simulation.cycle - start < limit) {
        const uint32_t status = read(kStatus);
        outcome.state = status & 3;
        if (outcome.state >= 2) {
            outcome.fault = status >> 4 & 15;
            break;
        }
        if (stop_after >= 0 && simulation.cycle - start >= static_cast<uint64_t>(stop_after)) {
            write(kControl, 2);
            if (read(kStatus) == 0) outcome.status = "stopped";
            break;
        }
        for (unsigned i = 0; i < kPollInterval; i++) simulation.tick(&memory);
        if (progress && simulation.cycle - start >= next_look) {
            next_look += 16384;
            const auto now = std::chrono::steady_clock::now();
            if (now - shown > std::chrono::milliseconds(200)) {
                shown = now;
                std::printf("progress\tcycles=%llu\n", static_cast<unsigned long long>(simulation.cycle - start));
                std::fflush(stdout);
            }
        }
    }
    outcome.cycles = simulation.cycle - start;
    if (answered && memory.violation.empty()) {
        if (outcome.state >= 2) outcome.status = outcome.state == 2 ? "done" : "fault";
        outcome.fault_index = read(kFaultIndex);
        for (unsigned i = 0; i < kCounterDrain; i++) simulation.tick(&memory);
        const uint32_t count = read(kCounterCount);
        for (uint32_t i = 0; answered && i < count && i < kCounterMax; i++) outcome.counters.push_back(read(kCounters + 4 * i));
    }
    if (!memory.violation.empty()) {
        outcome.status = "protocol";
        outcome.detail = memory.violation;
    } else if (!answered) {
        outcome.status = "protocol";
        outcome.detail = "the CSR port did not answer";
    }
    return outcome;
}

bool read_job(Job& job) {
    std::string line;
    for (int c; (c = std::getchar()) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
    if (line.empty()) return false;
    for (size_t position = 0; position < line.size();) {
        size_t end = line.find('\t', position);
        if (end == std::string::npos) end = line.size();
        const size_t equals = line.find('=', position);
        job.values[line.substr(position, equals - position)] = line.substr(equals + 1, end - equals - 1);
        position = end + 1;
    }
    return true;
}

}  // namespace

int main() {
    std::unique_ptr<Simulation> simulation;
    for (Job job; read_job(job); job = Job()) {
        Memory memory(job);
        if (std::fread(memory.bytes.data(), 1, memory.bytes.size(), stdin) != memory.bytes.size()) return 2;
        // A fresh model: what a job leaves in the memories must not reach the next one, unless the job asks for it.
        if (!simulation || !job.number("keep")) {
            simulation.reset();
            simulation.reset(new Simulation(job.text("trace")));
        }
        const Outcome outcome = run(*simulation, memory, job);
        memory.close_log();  // before anybody is told that the run is over
        if (!job.text("trace").empty()) simulation.reset();
        std::printf("result\tstatus=%s\tcycles=%llu\tstate=%u\tfault=%u\tfault_index=%u\treads=%llu\twrites=%llu\tcounters=",
                    outcome.status.c_str(), static_cast<unsigned long long>(outcome.cycles), outcome.state, outcome.fault,
                    outcome.fault_index, static_cast<unsigned long long>(memory.reads), static_cast<unsigned long long>(memory.writes));
        for (size_t i = 0; i < outcome.counters.size(); i++) std::printf("%s%u", i ? "," : "", outcome.counters[i]);
        std::printf("\tdetail=%s\n", outcome.detail.c_str());
        std::fwrite(memory.bytes.data(), 1, memory.bytes.size(), stdout);
        std::fflush(stdout);
    }
    return 0;
}
