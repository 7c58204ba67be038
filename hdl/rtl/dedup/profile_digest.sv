// SPDX-License-Identifier: Apache-2.0
// Digests of all ports' frames under the selected duplicate profile: half 0 of decision 0001, as key.h has it.
//
// Two engines (frame_digest): one over the captured bytes, and, unless the profile is exact, one over what
// frame_normaliser makes of them. Which of the two a frame's digest is, is known at its end only: the
// normalised one where its headers are understood, else that of the captured bytes in the domain {profile, 0}. At the
// end of a frame of which there is no message (its profile was exact) bit 62 of word_i is low, as bit 62 of a
// message's end is high for a runt.
// Clock: the core clock. Each port's results come in the order of its frames, one for each frame of at least 60
// bytes, a cycle behind the later of the two engines (frame_digest says when).
// Back-pressure: ready_o for captured words, as frame_digest; normal_ready_o for normalised ones, low from a
// frame's end until its result, at most as long as the port waits for it anyway.
// flush_i: a port's message under way is given up, and what it waits for; frame_store gives up its frame.
// profile_i (as in verdicts: 0 and 1 exact, 2 vlan, 3 routing) changes while no port receives, as the keys do; a
// frame under way at a change may have a wrong digest, later ones not.
module profile_digest #(
  parameter int unsigned Ports = 4,
  parameter bit Profiles = 1'b1   // 0: exact only, without the second engine
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic [1:0]       profile_i,
  input  logic [Ports-1:0] flush_i,

  input  logic [Ports-1:0] valid_i,
  input  logic [Ports-1:0] end_i,
  input  logic [63:0]      word_i [Ports],
  output logic [Ports-1:0] ready_o,
  output logic [Ports-1:0] done_o,
  output logic [63:0]      digest_o [Ports],

  input  logic [Ports-1:0] normal_valid_i,
  input  logic [Ports-1:0] normal_end_i,
  input  logic [63:0]      normal_word_i [Ports],
  output logic [Ports-1:0] normal_ready_o,

  input  logic             key_write_i,
  input  logic [8:0]       key_address_i,
  input  logic [31:0]      key_data_i
);
  // Captured bytes.
  logic [Ports-1:0] raw_done;
  logic [63:0] raw_digest;
  logic [63:0] raw_word [Ports];
  logic [7:0] raw_domain;
  assign raw_domain = Profiles && profile_i[1] ? {2'b0, profile_i, 4'b0} : '0;
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_word
    assign raw_word[p] = end_i[p] ? word_i[p] | {24'b0, raw_domain, 32'b0} : word_i[p];
  end
  frame_digest #(.Ports(Ports)) u_raw (
    .clk_i, .rst_ni, .valid_i, .end_i, .word_i(raw_word), .ready_o, .done_o(raw_done), .digest_o(raw_digest),
    .key_write_i, .key_address_i, .key_data_i
  );

  if (!Profiles) begin : gen_exact
    logic unused;
    assign unused = ^{profile_i, flush_i, normal_valid_i, normal_end_i};
    assign done_o = raw_done;
    assign normal_ready_o = '1;
    for (genvar p = 0; p < int'(Ports); p++) begin : gen_port
      logic unused_word;
      assign unused_word = ^normal_word_i[p];
      assign digest_o[p] = raw_digest;
    end
  end else begin : gen_profiles
    logic [Ports-1:0] normal_done, normal_take, normal_end, normal_ready, wait_q;
    logic [63:0] normal_word [Ports];
    logic [63:0] normal_digest;
    frame_digest #(.Ports(Ports)) u_normal (
      .clk_i, .rst_ni, .valid_i(normal_take), .end_i(normal_end), .word_i(normal_word),
      .ready_o(normal_ready), .done_o(normal_done), .digest_o(normal_digest),
      .key_write_i, .key_address_i, .key_data_i
    );

    for (genvar p = 0; p < int'(Ports); p++) begin : gen_port
      logic runt, forget, give_up, open_q, raw_q, profiled_q, normal_q, unknown_q;
      logic [63:0] raw_digest_q, normal_digest_q;
      assign {forget, runt} = normal_word[p][63:62];
      assign give_up = flush_i[p] && open_q;
      assign normal_end[p] = give_up || normal_end_i[p];
      assign normal_word[p] = give_up ? 64'hC000_0000_0000_0000 : normal_word_i[p];
      assign normal_take[p] = (give_up || (normal_valid_i[p] && !flush_i[p])) && !wait_q[p] && normal_ready[p];
      assign normal_ready_o[p] = !wait_q[p] && normal_ready[p];
      assign done_o[p] = raw_q && (normal_q || !profiled_q);
      assign digest_o[p] = unknown_q || !profiled_q ? raw_digest_q : normal_digest_q;
      always_ff @(posedge clk_i or negedge rst_ni) begin
        if (!rst_ni) begin
          open_q <= 1'b0;
          wait_q[p] <= 1'b0;
          raw_q <= 1'b0;
          profiled_q <= 1'b0;
          normal_q <= 1'b0;
          unknown_q <= 1'b0;
          raw_digest_q <= '0;
          normal_digest_q <= '0;
        end else begin
          if (normal_take[p]) open_q <= !normal_end[p];
          if (done_o[p]) begin
            raw_q <= 1'b0;
            if (profiled_q) begin
              normal_q <= 1'b0;
              wait_q[p] <= 1'b0;
            end
          end
          if (valid_i[p] && end_i[p] && ready_o[p]) profiled_q <= word_i[p][62];
          if (raw_done[p]) begin
            raw_q <= 1'b1;
            raw_digest_q <= raw_digest;
          end
          if (normal_done[p]) begin
            normal_q <= 1'b1;
            normal_digest_q <= normal_digest;
          end
          if (normal_take[p] && normal_end[p] && !runt) begin
            wait_q[p] <= 1'b1;
            unknown_q <= forget;
            if (forget) normal_q <= 1'b1;
          end
          if (flush_i[p]) begin
            wait_q[p] <= 1'b0;
            raw_q <= 1'b0;
            normal_q <= 1'b0;
          end
        end
      end
    end
  end
endmodule
