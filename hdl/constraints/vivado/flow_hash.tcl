# SPDX-License-Identifier: Apache-2.0
# The flow hash's key is written in the core clock while the port does not receive, and read in the receive clock: not
# timed between the two.
foreach cell [get_cells -quiet -hierarchical -filter {ORIG_REF_NAME == flow_hash || REF_NAME =~ flow_hash*}] {
  set keys [get_cells -quiet -hierarchical -filter "PARENT == $cell && NAME =~ */key_*_reg*"]
  if {[llength $keys] == 0} continue
  set_false_path -from $keys
}
