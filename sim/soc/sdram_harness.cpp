// Runs the SDRAM controller with a chip on its pins and a master on each port; the controller's Verilog is Vtop, TERCEL_MEMORY_WIDTH its beat.
//
// Standard input: one line of tab separated key=value pairs (figures of the chip, pin_latency, npu and host: numbers of requests, outstanding,
// max_cycles, dump: file for the chip's contents, or nothing), then the requests of both ports. Standard output: one line of results, a line for
// each violation of the chip's rules, and an answer for each request.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "sdram_model.hpp"
#include "verilated.h"

// Verilator spells a double underscore inside a name ___05F.
#define PIN(member) top.pins___05F##member

namespace {

constexpr unsigned kWidth = TERCEL_MEMORY_WIDTH, kWidest = 16;
constexpr unsigned kRest = 300;  // cycles after the last answer in which none may come

struct Request {
    uint32_t adr, wait;  // cycles from the acceptance of the request before until this one is made
    uint16_t sel;
    uint8_t write, abandon;  // abandon: CYC falls meanwhile, and what is outstanding gets no answer
    uint8_t data[kWidest];
};
struct Answer {
    uint32_t accepted, answered;  // cycles
    uint8_t kind, unused[3];      // kNone, kAck, kErr
    uint8_t data[kWidest];
};
enum Kind : uint8_t { kNone, kAck, kErr };
static_assert(sizeof(Request) == 28 && sizeof(Answer) == 28, "Python has these layouts too");

class Master {
  public:
    std::string violation;

    Master(std::vector<Request> list, size_t limit) : requests(std::move(list)), answers(requests.size()), outstanding_limit(limit) {}

    bool done() const { return next == requests.size() && waiting.empty(); }
    bool busy() const { return asking || !waiting.empty(); }
    size_t answered = 0;

    template <typename Data>
    void drive(CData& cyc, CData& stb, CData& we, IData& adr, void* sel, Data& dat_w, uint64_t cycle) {
        if (!asking && next < requests.size()) {
            const Request& request = requests[next];
            if (request.abandon && cycle < due) waiting.clear();
            if (cycle >= due && waiting.size() < outstanding_limit) {
                asking = true;
                adr = request.adr;
                we = request.write;
                // Garbage where nothing is to be written.
                for (unsigned i = 0; i < kWidth; i++)
                    reinterpret_cast<uint8_t*>(&dat_w)[i] = request.write ? request.data[i] : static_cast<uint8_t>(cycle * 37 + i);
                const uint16_t selected = static_cast<uint16_t>(request.sel & ((1u << kWidth) - 1));
                std::memcpy(sel, &selected, (kWidth + 7) / 8);
            }
        }
        stb = asking;
        cyc = busy();
    }

    void sample(bool stall, bool ack, bool err, const void* dat_r, uint64_t cycle) {
        if (ack || err) {
            if (ack && err) violation = "an answer is both";
            if (waiting.empty()) {
                violation = "an answer without a request";
            } else {
                Answer& answer = answers[waiting.front()];
                waiting.pop_front();
                answer.answered = static_cast<uint32_t>(cycle);
                answer.kind = err ? kErr : kAck;
                std::memcpy(answer.data, dat_r, kWidth);
                answered++;
            }
        }
        if (asking && !stall) {
            answers[next].accepted = static_cast<uint32_t>(cycle);
            waiting.push_back(next++);
            asking = false;
            if (next < requests.size()) due = cycle + 1 + requests[next].wait;
        }
    }

    void write_answers() const { std::fwrite(answers.data(), sizeof(Answer), answers.size(), stdout); }

  private:
    std::vector<Request> requests;
    std::vector<Answer> answers;
    std::deque<size_t> waiting;
    size_t next = 0, outstanding_limit;
    uint64_t due = 0;
    bool asking = false;
};

std::map<std::string, std::string> read_header() {
    std::map<std::string, std::string> values;
    std::string line;
    for (int c; (c = std::getchar()) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
    for (size_t position = 0; position < line.size();) {
        size_t end = line.find('\t', position);
        if (end == std::string::npos) end = line.size();
        const size_t equals = line.find('=', position);
        values[line.substr(position, equals - position)] = line.substr(equals + 1, end - equals - 1);
        position = end + 1;
    }
    return values;
}

std::vector<Request> read_requests(size_t count) {
    std::vector<Request> requests(count);
    if (std::fread(requests.data(), sizeof(Request), count, stdin) != count) std::exit(2);
    return requests;
}

}  // namespace

int main() {
    auto values = read_header();
    auto number = [&](const char* key) { return std::strtoull(values.at(key).c_str(), nullptr, 10); };
    const size_t outstanding = number("outstanding");
    Master npu(read_requests(number("npu")), outstanding), host(read_requests(number("host")), outstanding);
    tercel::SdramModel chip(values.at("figures"));
    // Registers of a board: half of the cycles on the way out, the rest on the way back. -1: the chip's clock comes a part of a cycle after
    // ours, so that it sees levels in the cycle in which they change, and what it drives for its next edge is there for ours.
    const bool early = values.at("pin_latency") == "-1";
    const unsigned latency = early ? 0 : static_cast<unsigned>(number("pin_latency"));
    std::deque<tercel::SdramPins> out(latency / 2);
    std::deque<uint32_t> back(latency - latency / 2);

    const std::unique_ptr<VerilatedContext> context(new VerilatedContext);
    const std::unique_ptr<Vtop> model(new Vtop(context.get()));
    Vtop& top = *model;
    uint64_t cycle = 0, busy = 0, ready_at = 0;
    auto tick = [&](bool running) {
        if (running) {
            npu.drive(top.npu___05Fcyc, top.npu___05Fstb, top.npu___05Fwe, top.npu___05Fadr, &top.npu___05Fsel, top.npu___05Fdat_w, cycle);
            host.drive(top.host___05Fcyc, top.host___05Fstb, top.host___05Fwe, top.host___05Fadr, &top.host___05Fsel, top.host___05Fdat_w,
                       cycle);
        }
        top.clk = 0;
        top.eval();
        if (running) {
            busy += top.ready && (npu.busy() || host.busy());
            if (top.ready && !ready_at) ready_at = cycle;
            npu.sample(top.npu___05Fstall, top.npu___05Fack, top.npu___05Ferr, &top.npu___05Fdat_r, cycle);
            host.sample(top.host___05Fstall, top.host___05Fack, top.host___05Ferr, &top.host___05Fdat_r, cycle);
        }
        tercel::SdramPins pins;
        pins.cke = PIN(cke), pins.cs_n = PIN(cs_n), pins.ras_n = PIN(ras_n), pins.cas_n = PIN(cas_n), pins.we_n = PIN(we_n);
        pins.ba = PIN(ba), pins.a = PIN(a), pins.dqm = PIN(dqm), pins.dq_o = PIN(dq_o), pins.dq_oe = PIN(dq_oe);
        out.push_back(pins);
        chip.clock(out.front());
        out.pop_front();
        back.push_back(chip.dq());
        if (early) PIN(dq_i) = back.front();
        top.clk = 1;
        top.eval();
        PIN(dq_i) = back.front();
        back.pop_front();
        cycle++;
    };
    top.rst = 1;
    for (int i = 0; i < 4; i++) tick(false);
    top.rst = 0;
    const uint64_t limit = number("max_cycles");
    while (!(npu.done() && host.done()) && cycle < limit && npu.violation.empty() && host.violation.empty()) tick(true);
    const bool finished = npu.done() && host.done();
    for (unsigned i = 0; i < kRest; i++) tick(true);
    top.final();

    const std::string& fault = npu.violation.empty() ? host.violation : npu.violation;
    std::printf("status=%s\tcycles=%llu\tready=%llu\tbusy=%llu\twords_read=%llu\twords_written=%llu\tviolations=%zu\tdetail=%s",
                !fault.empty() ? "protocol" : finished ? "done" : "timeout", static_cast<unsigned long long>(cycle),
                static_cast<unsigned long long>(ready_at), static_cast<unsigned long long>(busy),
                static_cast<unsigned long long>(chip.words_read), static_cast<unsigned long long>(chip.words_written),
                chip.violations.size(), fault.c_str());
    for (unsigned command = 0; command < tercel::SdramModel::kCommands; command++)
        std::printf("\t%s=%llu", tercel::SdramModel::name(command), static_cast<unsigned long long>(chip.commands[command]));
    std::printf("\n");
    for (const tercel::SdramViolation& violation : chip.violations) std::printf("%s\n", violation.describe().c_str());
    npu.write_answers();
    host.write_answers();
    if (!values.at("dump").empty()) {
        FILE* file = std::fopen(values.at("dump").c_str(), "wb");
        if (!file || std::fwrite(chip.bytes.data(), 1, chip.bytes.size(), file) != chip.bytes.size()) return 2;
        std::fclose(file);
    }
    return 0;
}
