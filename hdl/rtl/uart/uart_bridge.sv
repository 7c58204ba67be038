// SPDX-License-Identifier: Apache-2.0
// A serial line to the card: registers over AXI4-Lite and words of on-chip memory, for boards without host
// memory. The protocol is in docs/uart.md.
//
// Clock: clk_i (core). A request is carried out only when all of it is here and its CRC is right; a write
// that follows the last one carried out, no read between, with the same tag is answered again and not carried
// out again, so a host may repeat what was not answered. A request that stops half-way is forgotten after
// Silence cycles.
module uart_bridge #(
  parameter int unsigned Silence = 1 << 17,   // cycles: 1 ms at 125 MHz
  parameter int unsigned MemoryLog2 = 13      // 64-bit words
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [15:0] divider_i,
  input  logic        rx_i,
  output logic        tx_o,

  output logic        m_axil_awvalid,
  input  logic        m_axil_awready,
  output logic [16:0] m_axil_awaddr,
  output logic        m_axil_wvalid,
  input  logic        m_axil_wready,
  output logic [31:0] m_axil_wdata,
  input  logic        m_axil_bvalid,
  output logic        m_axil_bready,
  input  logic [1:0]  m_axil_bresp,
  output logic        m_axil_arvalid,
  input  logic        m_axil_arready,
  output logic [16:0] m_axil_araddr,
  input  logic        m_axil_rvalid,
  output logic        m_axil_rready,
  input  logic [31:0] m_axil_rdata,
  input  logic [1:0]  m_axil_rresp,

  output logic                  memory_write_o,
  output logic [MemoryLog2-1:0] memory_address_o,
  output logic [63:0]           memory_data_o,
  input  logic [63:0]           memory_data_i   // a cycle after the address
);
  localparam logic [7:0] Request = 8'hA5, Answer = 8'h5A;
  localparam logic [7:0] OpReadRegisters = 8'd1, OpWriteRegisters = 8'd2, OpReadMemory = 8'd3, OpWriteMemory = 8'd4;
  localparam logic [7:0] Okay = 8'd0, BadCrc = 8'd1, BadRequest = 8'd2, BusError = 8'd3;

  function automatic logic [15:0] crc16(input logic [15:0] crc, input logic [7:0] data);
    // CRC-16/IBM-3740: polynomial 0x1021, start 0xFFFF, most significant bit first.
    logic [15:0] c;
    c = crc ^ {data, 8'h00};
    for (int i = 0; i < 8; i++) c = c[15] ? {c[14:0], 1'b0} ^ 16'h1021 : {c[14:0], 1'b0};
    return c;
  endfunction

  logic rx_valid, rx_take, tx_write, tx_full;
  logic [7:0] rx_data, tx_data;
  logic [15:0] unused_received, unused_framing, unused_overflow;
  logic unused_idle, unused_busy;
  // The host waits for an answer before it asks again, and what it sends is taken at once.
  uart #(.RxLog2(5), .TxLog2(4)) u_uart (
    .clk_i, .rst_ni, .divider_i, .rx_i, .tx_o, .read_i(rx_take), .valid_o(rx_valid), .data_o(rx_data),
    .received_o(unused_received), .write_i(tx_write), .data_i(tx_data), .full_o(tx_full),
    .idle_o(unused_idle), .framing_o(unused_framing), .overflow_o(unused_overflow), .busy_o(unused_busy)
  );

  typedef enum logic [3:0] {
    Idle, Header, Payload, Check, Run, RunBus, RunMemory, RunMemoryWait, RunMemoryTake, Head, Data, Tail
  } state_e;
  state_e state_q;
  logic [7:0] op_q, tag_q, last_q, status_q;   // last_q: words - 1
  logic [31:0] address_q;
  logic [2:0] byte_q;          // within the header or a word
  logic [7:0] word_q;          // within the payload
  logic [15:0] crc_q;
  logic [7:0] crc_low_q;
  logic check_high_q;
  logic done_tag_valid_q;
  logic [7:0] done_tag_q;
  logic [$clog2(Silence+1)-1:0] quiet_q;

  logic is_read, is_write, wide;
  assign is_read = op_q == OpReadRegisters || op_q == OpReadMemory;
  assign is_write = op_q == OpWriteRegisters || op_q == OpWriteMemory;
  assign wide = op_q == OpReadMemory || op_q == OpWriteMemory;
  logic [2:0] last_byte;
  assign last_byte = wide ? 3'd7 : 3'd3;

  // Address of the first word; all of the words must lie inside.
  logic in_range;
  assign in_range = wide ? address_q[2:0] == 3'd0 && address_q[31:MemoryLog2+3] == '0 &&
                           {1'b0, address_q[MemoryLog2+2:3]} + (MemoryLog2+1)'(last_q) < (MemoryLog2+1)'(2**MemoryLog2)
                         : address_q[1:0] == 2'd0 && address_q[31:17] == '0 &&
                           {1'b0, address_q[16:2]} + 16'(last_q) < 16'd32768;

  // Words of a request on their way in, or of an answer on their way out.
  logic [63:0] buffer [256];
  logic buffer_write;
  logic [7:0] buffer_address;
  logic [63:0] buffer_in, buffer_q, write_in_q;
  logic write_q;
  logic [7:0] write_at_q;
  logic [63:8] gather_q;
  always_ff @(posedge clk_i) begin
    // Written a cycle late; what is read was written long before.
    {write_q, write_at_q, write_in_q} <= {buffer_write, buffer_address, buffer_in};
    if (write_q) buffer[write_at_q] <= write_in_q;
    buffer_q <= buffer[buffer_address];
  end
  logic fetched_q;   // buffer_q is the word at word_q

  logic aw_q, w_q, b_q, ar_q, r_q;   // what the bus still owes
  assign m_axil_awvalid = aw_q;
  assign m_axil_wvalid = w_q;
  assign m_axil_bready = b_q;
  assign m_axil_arvalid = ar_q;
  assign m_axil_rready = r_q;
  assign m_axil_awaddr = address_q[16:0] + {7'd0, word_q, 2'd0};
  assign m_axil_araddr = m_axil_awaddr;
  assign m_axil_wdata = buffer_q[31:0];
  assign memory_address_o = address_q[MemoryLog2+2:3] + MemoryLog2'(word_q);
  assign memory_data_o = buffer_q;
  assign memory_write_o = state_q == RunMemory && is_write && fetched_q;

  // A word from far away, and a byte out of its word, each a cycle later.
  logic [63:0] memory_q;
  logic [7:0] byte_out_q;
  logic picked_q;              // byte_out_q is the byte at byte_q
  always_ff @(posedge clk_i) begin
    memory_q <= memory_data_i;
    byte_out_q <= buffer_q[8*byte_q +: 8];
  end

  assign buffer_address = word_q;
  assign rx_take = rx_valid && (state_q == Idle || state_q == Header || state_q == Payload || state_q == Check);
  always_comb begin
    buffer_write = 1'b0;
    buffer_in = {rx_data, gather_q};
    if (state_q == Payload) begin
      buffer_write = rx_take && byte_q == last_byte;
      if (!wide) buffer_in = {32'd0, rx_data, gather_q[63:40]};
    end else if (state_q == RunBus && is_read) begin
      buffer_write = r_q && m_axil_rvalid;
      buffer_in = {32'd0, m_axil_rdata};
    end else if (state_q == RunMemoryTake) begin
      buffer_write = is_read;
      buffer_in = memory_q;
    end
  end

  logic [7:0] head_byte;
  always_comb begin
    unique case (byte_q)
      3'd0: head_byte = Answer;
      3'd1: head_byte = op_q;
      3'd2: head_byte = tag_q;
      3'd3: head_byte = status_q;
      default: head_byte = last_q;
    endcase
  end
  always_comb begin
    unique case (state_q)
      Head: tx_data = head_byte;
      Data: tx_data = byte_out_q;
      default: tx_data = check_high_q ? crc_q[15:8] : crc_q[7:0];
    endcase
  end
  assign tx_write = !tx_full && (state_q == Head || (state_q == Data && picked_q) || state_q == Tail);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      op_q <= '0;
      tag_q <= '0;
      last_q <= '0;
      status_q <= '0;
      address_q <= '0;
      byte_q <= '0;
      word_q <= '0;
      crc_q <= '1;
      crc_low_q <= '0;
      check_high_q <= 1'b0;
      done_tag_valid_q <= 1'b0;
      done_tag_q <= '0;
      quiet_q <= '0;
      gather_q <= '0;
      fetched_q <= 1'b0;
      picked_q <= 1'b0;
      {aw_q, w_q, b_q, ar_q, r_q} <= '0;
    end else begin
      if (rx_take) begin
        crc_q <= crc16(crc_q, rx_data);
        gather_q <= {rx_data, gather_q[63:16]};
      end
      quiet_q <= rx_take ? '0 : quiet_q + ($bits(quiet_q))'(1);
      fetched_q <= 1'b1;
      picked_q <= state_q == Data && fetched_q && !tx_write;
      unique case (state_q)
        Idle: begin
          quiet_q <= '0;
          byte_q <= 3'd1;
          word_q <= '0;
          crc_q <= 16'hFFFF;
          if (rx_take && rx_data == Request) begin
            crc_q <= crc16(16'hFFFF, Request);
            state_q <= Header;
          end
        end
        Header: if (rx_take) begin
          byte_q <= byte_q + 3'd1;
          unique case (byte_q)
            3'd1: op_q <= rx_data;
            3'd2: tag_q <= rx_data;
            3'd3: last_q <= rx_data;
            default: address_q <= {rx_data, address_q[31:8]};
          endcase
          if (byte_q == 3'd7) begin
            byte_q <= '0;
            check_high_q <= 1'b0;
            state_q <= is_write ? Payload : Check;
          end
        end
        Payload: if (rx_take) begin
          byte_q <= byte_q == last_byte ? 3'd0 : byte_q + 3'd1;
          if (byte_q == last_byte) begin
            word_q <= word_q + 8'd1;
            if (word_q == last_q) state_q <= Check;
          end
        end
        Check: if (rx_take) begin
          // Two bytes, the lower first; what is compared has seen neither.
          crc_q <= crc_q;
          crc_low_q <= rx_data;
          check_high_q <= 1'b1;
          if (check_high_q) begin
            word_q <= '0;
            byte_q <= '0;
            if ({rx_data, crc_low_q} != crc_q) begin
              status_q <= BadCrc;
              state_q <= Head;
            end else if (!(is_read || is_write) || !in_range) begin
              status_q <= BadRequest;
              state_q <= Head;
            end else begin
              state_q <= Run;
            end
            crc_q <= 16'hFFFF;
          end
        end
        Run: begin
          status_q <= Okay;
          fetched_q <= 1'b0;
          if (is_write && done_tag_valid_q && done_tag_q == tag_q) begin
            state_q <= Head;  // it was done, and the answer was lost
          end else begin
            // A read ends it: whoever reads has no write to repeat, and may be another host with the same tag.
            done_tag_valid_q <= is_write;
            done_tag_q <= tag_q;
            state_q <= wide ? RunMemory : RunBus;
            ar_q <= !wide && is_read;
            r_q <= !wide && is_read;
          end
        end
        RunBus: begin
          if (is_write && fetched_q && !(aw_q || w_q || b_q)) {aw_q, w_q, b_q} <= '1;
          if (aw_q && m_axil_awready) aw_q <= 1'b0;
          if (w_q && m_axil_wready) w_q <= 1'b0;
          if (ar_q && m_axil_arready) ar_q <= 1'b0;
          if ((b_q && m_axil_bvalid) || (r_q && m_axil_rvalid)) begin
            b_q <= 1'b0;
            r_q <= 1'b0;
            fetched_q <= 1'b0;
            if ((b_q ? m_axil_bresp : m_axil_rresp) != 2'd0) status_q <= BusError;
            word_q <= word_q + 8'd1;
            if (word_q == last_q) begin
              word_q <= '0;
              state_q <= Head;
            end else if (is_read) begin
              {ar_q, r_q} <= '1;
            end
          end
        end
        RunMemory: begin
          // Reading: the address is out for a cycle. Writing: the word comes out of the buffer first.
          if (is_read || fetched_q) state_q <= RunMemoryWait;
        end
        RunMemoryWait: state_q <= RunMemoryTake;
        RunMemoryTake: begin
          fetched_q <= 1'b0;
          word_q <= word_q + 8'd1;
          state_q <= RunMemory;
          if (word_q == last_q) begin
            word_q <= '0;
            state_q <= Head;
          end
        end
        Head: if (tx_write) begin
          crc_q <= crc16(crc_q, tx_data);
          byte_q <= byte_q + 3'd1;
          if (byte_q == 3'd4) begin
            byte_q <= '0;
            check_high_q <= 1'b0;
            fetched_q <= 1'b0;
            state_q <= is_read && status_q == Okay ? Data : Tail;
          end
        end
        Data: if (tx_write) begin
          crc_q <= crc16(crc_q, tx_data);
          byte_q <= byte_q + 3'd1;
          if (byte_q == last_byte) begin
            byte_q <= '0;
            fetched_q <= 1'b0;
            word_q <= word_q + 8'd1;
            if (word_q == last_q) state_q <= Tail;
          end
        end
        Tail: if (tx_write) begin
          check_high_q <= 1'b1;
          if (check_high_q) state_q <= Idle;
        end
        default: state_q <= Idle;
      endcase
      if ((state_q == Header || state_q == Payload || state_q == Check) && quiet_q == ($bits(quiet_q))'(Silence))
        state_q <= Idle;
    end
  end
endmodule
