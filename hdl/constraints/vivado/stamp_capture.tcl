# SPDX-License-Identifier: Apache-2.0
# The toggle that makes a stamp: from gmii_rx's register to the first flip-flop 2 ns at most. What of it there is adds
# to the port's constant; calibration measures it, an uncalibrated port has it as an error of 0 to 2 ns.
foreach cell [get_cells -quiet -hierarchical -filter {ORIG_REF_NAME == stamp_capture || REF_NAME =~ stamp_capture*}] {
  set first [get_cells -quiet -hierarchical -filter "PARENT == $cell/u_sync && NAME =~ */first_q_reg*"]
  if {[llength $first] == 0} continue
  set data [get_pins -of_objects $first -filter {REF_PIN_NAME == D}]
  set senders [get_cells -quiet -of_objects [all_fanin -quiet -flat -startpoints_only $data] -filter {IS_SEQUENTIAL}]
  if {[llength $senders] == 0} continue
  set_max_delay -datapath_only -from $senders -to $first 2.000
}
