# SPDX-License-Identifier: Apache-2.0
# reset_sync asserts at once: what comes to its registers' clear pins is not timed. Its release is.
foreach cell [get_cells -quiet -hierarchical -filter {ORIG_REF_NAME == reset_sync || REF_NAME =~ reset_sync*}] {
  set chain [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */chain_q_reg*"]
  if {[llength $chain] == 0} continue
  set_property ASYNC_REG TRUE $chain
  set_false_path -to [get_pins -of_objects $chain -filter {REF_PIN_NAME == CLR || REF_PIN_NAME == PRE}]
}
