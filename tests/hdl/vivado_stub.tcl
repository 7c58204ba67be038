# SPDX-License-Identifier: Apache-2.0
# A stand-in for Vivado: the commands that package.tcl, build.tcl, the .xdc and hdl/constraints/vivado use, which look
# at their arguments and write on standard output what was asked. tclsh vivado_stub.tcl SCRIPT OPTION=VALUE…
# An unknown command, option, property, pin, port or file is an error. What it knows of Xilinx's cells is from UG835,
# UG1118 and public designs; it cannot tell whether Vivado agrees.
proc note {args} { puts "@ [join $args { }]" }
proc bad {what} { error "vivado_stub: $what" }
foreach argument [lrange $argv 1 end] {
  lassign [split $argument =] name value
  set given($name) $value
}

# Takes options with a value, flags and at most `most` other arguments from what a command got.
proc options {command arguments with flags least most} {
  set found {}
  set rest {}
  for {set i 0} {$i < [llength $arguments]} {incr i} {
    set word [lindex $arguments $i]
    if {$word in $with} {
      incr i
      if {$i == [llength $arguments]} { bad "$command $word: no value" }
      dict set found $word [lindex $arguments $i]
    } elseif {$word in $flags} {
      dict set found $word 1
    } elseif {[string match {-[a-z]*} $word]} {
      bad "$command: no option $word"
    } else {
      lappend rest $word
    }
  }
  if {[llength $rest] < $least || [llength $rest] > $most} { bad "$command: [llength $rest] arguments: $rest" }
  return [list $found $rest]
}

# Things are kind:name; properties that a kind has.
set known_properties {
  project {board_part ip_repo_paths directory}
  fileset {top}
  file {used_in_synthesis processing_order}
  core {name version core_revision display_name description vendor_display_name supported_families}
  bus {bus_type_vlnv abstraction_type_vlnv interface_mode slave_memory_map_ref master_address_space_ref}
  map {physical_name}
  busparameter {value}
  block {usage base_address range width}
  space {range width}
  parameter {display_name value_validation_type value_validation_range_minimum value_validation_range_maximum}
  bd {CONFIG.*}
  port {PACKAGE_PIN IOSTANDARD SLEW DRIVE PULLTYPE DIFF_TERM_ADV UNAVAILABLE_DURING_CALIBRATION}
  netlist {ASYNC_REG CLOCK_DEDICATED_ROUTE LOC USER_CLOCK_ROOT}
  design {BITSTREAM.GENERAL.COMPRESS}
  run {}
}
proc set_property {args} {
  global known_properties
  lassign [options set_property $args {-dict} {} 1 3] found rest
  set objects [lindex $rest end]
  if {[dict exists $found -dict]} {
    if {[llength $rest] != 1} { bad "set_property -dict: $rest" }
    set pairs [dict get $found -dict]
  } else {
    if {[llength $rest] != 3} { bad "set_property: $rest" }
    set pairs [lrange $rest 0 1]
  }
  if {[llength $objects] == 0} { bad "set_property $pairs: on nothing" }
  foreach object $objects {
    set kind [lindex [split $object :] 0]
    if {![dict exists $known_properties $kind]} { bad "set_property: what is $object?" }
    foreach {name value} $pairs {
      set known 0
      foreach pattern [dict get $known_properties $kind] { if {[string match $pattern $name]} { set known 1 } }
      if {!$known} { bad "set_property: $kind has no $name" }
      note property $object $name $value
    }
  }
}

proc create_project {args} {
  lassign [options create_project $args {-part} {-force} 2 2] found rest
  note project {*}$rest [dict get $found -part]
}
proc close_project {} {}
proc current_project {} { return project:now }
proc current_fileset {} { return fileset:sources_1 }
proc current_design {} { return design:now }
proc update_compile_order {args} { options update_compile_order $args {-fileset} {} 0 0 }
proc update_ip_catalog {} {}
proc add_files {args} {
  lassign [options add_files $args {-fileset} {-norecurse} 1 1] found rest
  foreach file [lindex $rest 0] {
    if {![file exists $file] && ![string match *_wrapper.v $file]} { bad "add_files: no $file" }
    note file $file
  }
}
proc get_files {names} {
  set found {}
  foreach name $names { lappend found file:$name }
  return $found
}

namespace eval ipx {
  proc package_project {args} {
    options ipx::package_project $args {-root_dir -vendor -library -taxonomy -set_current} {-import_files -force} 0 0
    ::note package $args
  }
  proc current_core {} { return core:now }
  foreach what {remove_all_bus_interface remove_all_memory_map remove_all_address_space create_xgui_files
                update_checksums check_integrity save_core} {
    proc $what {core} { if {$core ne "core:now"} { ::bad "no core $core" } }
  }
  variable made {}
  proc make {kind name of} {
    variable made
    if {[string match *:* $name]} { ::bad "$kind $name" }
    set it $kind:[join [lrange [split $of :] 1 end] /]/$name
    if {$it in $made} { ::bad "$it: twice" }
    lappend made $it
    ::note make $kind $name $of
    return $it
  }
  proc add_bus_interface {name core} { return [make bus $name $core] }
  proc add_port_map {name bus} { return [make map $name $bus] }
  proc add_bus_parameter {name bus} { return [make busparameter $name $bus] }
  proc add_memory_map {name core} { return [make memory $name $core] }
  proc add_address_block {name map} { return [make block $name $map] }
  proc add_address_space {name core} { return [make space $name $core] }
  proc get_bus_interfaces {name args} {
    variable made
    if {"bus:now/$name" ni $made} { ::bad "no bus interface $name" }
    return bus:now/$name
  }
  proc get_user_parameters {name args} {
    if {$name ni [split $::given(parameters) ,]} { ::bad "no parameter $name" }
    return parameter:$name
  }
}

# Block design. Pins of Xilinx's cells as far as they are used; the card's come from what was packaged.
set known_cells {}
set known_pins(zynq_ultra_ps_e) {maxihpm0_fpd_aclk saxihpc0_fpd_aclk pl_resetn0 pl_clk0 pl_ps_irq0}
set known_buses(zynq_ultra_ps_e) {M_AXI_HPM0_FPD S_AXI_HPC0_FPD}
set known_pins(clk_wiz) {clk_out1 clk_out2 clk_out3 clk_out4 locked}
set known_buses(clk_wiz) {CLK_IN1_D}
set known_pins(proc_sys_reset) {slowest_sync_clk ext_reset_in dcm_locked peripheral_aresetn}
set known_buses(proc_sys_reset) {}
set known_pins(smartconnect) {aclk aresetn}
set known_buses(smartconnect) {S00_AXI M00_AXI}
if {[info exists given(pins)]} {
  set known_pins(twinstamp_card) [split $given(pins) ,]
  set known_buses(twinstamp_card) [split $given(buses) ,]
}
proc get_board_parts {args} {
  options get_board_parts $args {} {-quiet -latest_file_version} 1 1
  return xilinx.com:zcu104:part0:1.1
}
proc create_bd_design {name} { note design $name }
proc create_bd_cell {args} {
  global known_cells known_pins
  lassign [options create_bd_cell $args {-type -vlnv} {} 1 1] found name
  set ip [lindex [split [dict get $found -vlnv] :] 2]
  if {![info exists known_pins($ip)]} { bad "create_bd_cell: no IP $ip" }
  dict set known_cells $name $ip
  return bd:$name
}
proc apply_bd_automation {args} { options apply_bd_automation $args {-rule -config} {} 1 1 }
proc member {what list path} {
  global known_cells
  lassign [split $path /] cell name
  if {![dict exists $known_cells $cell]} { bad "no cell $cell" }
  upvar #0 $list known
  set ip [dict get $known_cells $cell]
  if {$name ni $known($ip)} { bad "$what $path: $ip has no $name" }
  return bd:$path
}
proc get_bd_pins {path} { return [member pin known_pins $path] }
proc get_bd_intf_pins {path} { return [member {interface pin} known_buses $path] }
proc connect_bd_net {a b} { note net $a $b }
proc connect_bd_intf_net {a b} { note intf $a $b }
proc create_bd_intf_port {args} {
  lassign [options create_bd_intf_port $args {-mode -vlnv} {} 1 1] found name
  note intf_port $name [dict get $found -vlnv]
  return bd:$name
}
proc create_bd_port {args} {
  lassign [options create_bd_port $args {-dir -from -to} {} 1 1] found name
  set high [expr {[dict exists $found -from] ? [dict get $found -from] : -1}]
  note port $name [dict get $found -dir] $high
  return bd:$name
}
proc get_bd_addr_spaces {path} { return bd:$path }
proc get_bd_addr_segs {path} { return bd:$path }
proc assign_bd_address {args} {
  options assign_bd_address $args {-offset -range -target_address_space} {} 0 1
  note address $args
}
proc validate_bd_design {} {}
proc save_bd_design {} {}
proc make_wrapper {args} {
  options make_wrapper $args {-files} {-top} 0 0
  return $::given(out)/twinstamp_wrapper.v
}
proc generate_target {what file} {}

# Runs and reports.
proc launch_runs {args} { options launch_runs $args {-to_step -jobs} {} 1 1 }
proc wait_on_run {run} {}
proc open_run {run} {}
proc get_runs {name} { return run:$name }
foreach report {report_timing_summary report_utilization report_cdc report_bus_skew} {
  proc $report {args} { options report $args {-file} {-details} 0 0 }
}
proc report_timing {args} { options report_timing $args {-from -to -max_paths -nworst -file} {} 0 0 }
proc get_property {args} {
  lassign [options get_property $args {} {-min -quiet} 2 2] found rest
  switch [lindex $rest 0] {
    PROGRESS { return 100% }
    STATS.WNS - STATS.WHS { return $::given(slack) }
    PERIOD { return 8.000 }
    directory { return $::given(out)/project }
    default { bad "get_property $rest" }
  }
}

# Netlist. Ports are known by name; of cells and pins that what looks for them is well formed.
proc get_ports {patterns} {
  global given
  set found {}
  foreach pattern $patterns {
    set some 0
    set wanted [string map {[ \\[ ] \\]} $pattern]
    foreach port [split $given(ports) ,] {
      if {[string match $wanted $port]} {
        lappend found port:$port
        set some 1
      }
    }
    if {!$some} { bad "get_ports: no $pattern" }
  }
  return $found
}
proc netlist {command arguments} {
  lassign [options $command $arguments {-filter -of_objects} {-quiet -hierarchical} 0 1] found rest
  if {[dict exists $found -of_objects] && [llength [dict get $found -of_objects]] == 0} { bad "$command: of nothing" }
  if {[dict exists $found -filter]} {
    set condition [dict get $found -filter]
    if {![regexp {^(\w+ (==|=~) \S+( \|\| | && |$))+$|^IS_SEQUENTIAL$} $condition]} { bad "$command -filter $condition" }
    foreach {_ value} [regexp -all -inline {NAME =~ (\S+)} $condition] { note looks $value }
  }
  foreach name $rest { note looks $name }
  return netlist:$command
}
proc get_cells {args} { return [netlist get_cells $args] }
proc get_pins {args} { return [netlist get_pins $args] }
proc get_nets {args} { return [netlist get_nets $args] }
proc get_clocks {args} { return [netlist get_clocks $args] }
proc all_fanin {args} {
  options all_fanin $args {} {-quiet -flat -startpoints_only} 1 1
  return netlist:all_fanin
}
proc create_clock {args} {
  lassign [options create_clock $args {-period -name} {} 1 1] found rest
  lappend ::clock_names [dict get $found -name]
  note clock [dict get $found -name] {*}[lindex $rest 0]
}
proc create_generated_clock {args} {
  lassign [options create_generated_clock $args {-name -divide_by -source} {} 1 1] found rest
  lappend ::clock_names [dict get $found -name]
  note clock [dict get $found -name] {*}[lindex $rest 0]
}
proc delay {command arguments} {
  lassign [options $command $arguments {-clock -max -min} {-clock_fall -add_delay} 1 1] found rest
  if {[dict get $found -clock] ni $::clock_names} { bad "$command: no clock [dict get $found -clock]" }
  if {[dict exists $found -max] == [dict exists $found -min]} { bad "$command: $arguments" }
  note delay $command $found {*}[lindex $rest 0]
}
proc set_input_delay {args} { delay set_input_delay $args }
proc set_output_delay {args} { delay set_output_delay $args }
proc set_max_delay {args} {
  lassign [options set_max_delay $args {-from -to} {-datapath_only} 1 1] found rest
  if {![string is double -strict $rest] || $rest <= 0} { bad "set_max_delay $args" }
  note exception set_max_delay
}
proc set_bus_skew {args} {
  lassign [options set_bus_skew $args {-from -to} {} 1 1] found rest
  if {[dict size $found] != 2 || ![string is double -strict $rest] || $rest <= 0} { bad "set_bus_skew $args" }
  note exception set_bus_skew
}
proc set_false_path {args} {
  lassign [options set_false_path $args {-from -to} {} 0 0] found rest
  if {[dict size $found] == 0} { bad "set_false_path: all paths" }
  note exception set_false_path
}

set clock_names {}
set script [lindex $argv 0]
# As Vivado does with batch scripts: the script knows its own name.
source $script
note done
