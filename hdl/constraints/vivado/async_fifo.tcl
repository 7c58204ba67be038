# SPDX-License-Identifier: Apache-2.0
# Crossings of async_fifo, wherever one is: its Gray pointers' bits arrive within one period of the faster clock of one
# another (sync_2ff.tcl bounds them too), and what is read from the memory, which was written long before, within one
# period of the reading clock.
foreach cell [get_cells -quiet -hierarchical -filter {ORIG_REF_NAME == async_fifo || REF_NAME =~ async_fifo*}] {
  set written [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */wgray_q_reg*"]
  set read [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */rgray_q_reg*"]
  if {[llength $written] == 0 || [llength $read] == 0} continue
  set write_clock [get_clocks -of_objects [get_pins -of_objects $written -filter {REF_PIN_NAME == C}]]
  set read_clock [get_clocks -of_objects [get_pins -of_objects $read -filter {REF_PIN_NAME == C}]]
  set write_period [get_property -min PERIOD $write_clock]
  set read_period [get_property -min PERIOD $read_clock]
  set skew [expr {min($write_period, $read_period)}]
  set_bus_skew -from $written -to [get_cells -hierarchical -filter "PARENT == $cell/u_w2r && NAME =~ */first_q_reg*"] $skew
  set_bus_skew -from $read -to [get_cells -hierarchical -filter "PARENT == $cell/u_r2w && NAME =~ */first_q_reg*"] $skew
  set memory [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */memory_reg*"]
  if {[llength $memory] == 0} continue
  set_max_delay -datapath_only -from $memory -to $read_clock $read_period
}
