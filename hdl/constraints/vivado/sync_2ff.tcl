# SPDX-License-Identifier: Apache-2.0
# Crossings of sync_2ff, wherever one is: from the sending registers one receiving period at most, so that a
# Gray-coded vector never shows two steps at once. stamp_capture's has a bound of its own (stamp_capture.tcl).
# Needs the hierarchy (flatten_hierarchy none or rebuilt).
foreach cell [get_cells -quiet -hierarchical -filter {ORIG_REF_NAME == sync_2ff || REF_NAME =~ sync_2ff*}] {
  set first [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */first_q_reg*"]
  if {[llength $first] == 0} continue
  set_property ASYNC_REG TRUE $first
  set_property ASYNC_REG TRUE [get_cells -hierarchical -filter "PARENT == $cell && NAME =~ */second_q_reg*"]
  if {[string match */u_stamp/* $cell]} continue
  set data [get_pins -of_objects $first -filter {REF_PIN_NAME == D}]
  set senders [get_cells -quiet -of_objects [all_fanin -quiet -flat -startpoints_only $data] -filter {IS_SEQUENTIAL}]
  set clock [get_clocks -quiet -of_objects [get_pins -of_objects $first -filter {REF_PIN_NAME == C}]]
  if {[llength $senders] == 0 || [llength $clock] == 0} continue
  set_max_delay -datapath_only -from $senders -to $first [get_property -min PERIOD $clock]
}
