// The accelerator as the harness sees it. The reset goes through a register: Verilator would otherwise count the logic in front of every
// resettable register as depending on an input, and evaluate it twice more in every cycle.
module shell (
    input clk,
    input rst,
    output [`MEMORY_ADDR_BITS-1:0] memory__adr,
    output [8*`MEMORY_WIDTH-1:0] memory__dat_w,
    input [8*`MEMORY_WIDTH-1:0] memory__dat_r,
    output [`MEMORY_WIDTH-1:0] memory__sel,
    output memory__we,
    output memory__cyc,
    output memory__stb,
    input memory__stall,
    input memory__ack,
    input memory__err,
    input [`CSR_ADDR_BITS-1:0] csr__adr,
    input [31:0] csr__dat_w,
    output [31:0] csr__dat_r,
    input [3:0] csr__sel,
    input csr__we,
    input csr__cyc,
    input csr__stb,
    output csr__stall,
    output csr__ack
);
    reg rst_registered;
    always @(posedge clk) rst_registered <= rst;

    tercel_npu npu (
        .clk(clk),
        .rst(rst_registered),
        .memory__adr(memory__adr),
        .memory__dat_w(memory__dat_w),
        .memory__dat_r(memory__dat_r),
        .memory__sel(memory__sel),
        .memory__we(memory__we),
        .memory__cyc(memory__cyc),
        .memory__stb(memory__stb),
        .memory__stall(memory__stall),
        .memory__ack(memory__ack),
        .memory__err(memory__err),
        .csr__adr(csr__adr),
        .csr__dat_w(csr__dat_w),
        .csr__dat_r(csr__dat_r),
        .csr__sel(csr__sel),
        .csr__we(csr__we),
        .csr__cyc(csr__cyc),
        .csr__stb(csr__stb),
        .csr__stall(csr__stall),
        .csr__ack(csr__ack)
    );
endmodule
