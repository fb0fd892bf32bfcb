// The SDRAM model for Python: a shared library with C functions. A handle is a model that lives from sdram_new to sdram_delete.

#include <cstring>

#include "sdram_model.hpp"

using tercel::SdramModel;
using tercel::SdramPins;

extern "C" {

SdramModel* sdram_new(const char* figures) { return new SdramModel(figures); }
void sdram_delete(SdramModel* model) { delete model; }

// Bits of `levels`: cke, cs_n, ras_n, cas_n, we_n, dq_oe.
void sdram_clock(SdramModel* model, unsigned levels, uint32_t ba, uint32_t a, uint32_t dqm, uint32_t dq_o) {
    SdramPins pins;
    pins.cke = levels & 1, pins.cs_n = levels >> 1 & 1, pins.ras_n = levels >> 2 & 1, pins.cas_n = levels >> 3 & 1;
    pins.we_n = levels >> 4 & 1, pins.dq_oe = levels >> 5 & 1;
    pins.ba = ba, pins.a = a, pins.dqm = dqm, pins.dq_o = dq_o;
    model->clock(pins);
}
uint32_t sdram_dq(const SdramModel* model) { return model->dq(); }
int sdram_drives(const SdramModel* model) { return model->drives(); }
uint64_t sdram_cycle(const SdramModel* model) { return model->cycle; }
uint8_t* sdram_bytes(SdramModel* model) { return model->bytes.data(); }
uint64_t sdram_command_count(const SdramModel* model, unsigned command) { return model->commands[command]; }
uint64_t sdram_violation_count(const SdramModel* model) { return model->violation_count; }

// The text of a violation that was kept, cut to `size` bytes with the final zero.
void sdram_violation(const SdramModel* model, unsigned number, char* text, unsigned size) {
    std::strncpy(text, model->violations[number].describe().c_str(), size - 1);
    text[size - 1] = 0;
}

}  // extern "C"
