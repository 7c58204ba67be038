# SPDX-License-Identifier: Apache-2.0
# The ZCU104's overlay: block design, bit stream, hardware handoff. After `make ip`, in the repository's root:
#   vivado -mode batch -source hdl/boards/zcu104/build.tcl
# Results: build/zcu104/twinstamp.bit, .hwh and .phys.toml, for open_card("pynq:…/twinstamp.bit"), and reports.
# Not run: no Vivado was at hand (tests/hdl/test_package_ip.py runs it in a stand-in for one).
set root [file normalize [file join [file dirname [info script]] .. .. ..]]
set ip [file join $root build ip]
set out [file join $root build zcu104]
set jobs 4
if {![file exists [file join $ip package.tcl]]} {
  error "no [file join $ip package.tcl]: run make ip first"
}
file mkdir $out
if {![file exists [file join $ip core component.xml]]} {
  source [file join $ip package.tcl]
}

create_project -force -part xczu7ev-ffvc1156-2-e project [file join $out project]
set board [get_board_parts -quiet *:zcu104:* -latest_file_version]
if {$board eq ""} {
  error "no board files of the ZCU104: install them (xhub::install, or the board store in Vivado's Tools menu)"
}
set_property board_part $board [current_project]
set_property ip_repo_paths [file join $ip core] [current_project]
update_ip_catalog
create_bd_design twinstamp

# Processing system: registers behind HPM0, memory through the coherent port HPC0, one interrupt.
set ps [create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps]
apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset 1} $ps
set_property -dict {
  CONFIG.PSU__USE__M_AXI_GP0 1
  CONFIG.PSU__USE__M_AXI_GP1 0
  CONFIG.PSU__USE__M_AXI_GP2 0
  CONFIG.PSU__USE__S_AXI_GP0 1
  CONFIG.PSU__USE__IRQ0 1
} $ps

# All clocks of the card from the FMC card's 125 MHz: one oscillator for time, transmit and sampling.
set clocks [create_bd_cell -type ip -vlnv xilinx.com:ip:clk_wiz clocks]
set_property -dict {
  CONFIG.PRIM_SOURCE Differential_clock_capable_pin
  CONFIG.PRIM_IN_FREQ 125.000
  CONFIG.CLKOUT1_REQUESTED_OUT_FREQ 125.000
  CONFIG.CLKOUT2_USED true
  CONFIG.CLKOUT2_REQUESTED_OUT_FREQ 125.000
  CONFIG.CLKOUT2_REQUESTED_PHASE 90.000
  CONFIG.CLKOUT3_USED true
  CONFIG.CLKOUT3_REQUESTED_OUT_FREQ 300.000
  CONFIG.CLKOUT4_USED true
  CONFIG.CLKOUT4_REQUESTED_OUT_FREQ 500.000
  CONFIG.USE_LOCKED true
  CONFIG.USE_RESET false
} $clocks
set reset [create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset]
set card [create_bd_cell -type ip -vlnv twinstamp.org:twinstamp:twinstamp_card card]
set registers [create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect registers]
set memory [create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect memory]
set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 1} $registers
set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 1} $memory

# source pin, then all that it drives
proc connect {source args} {
  foreach sink $args {
    connect_bd_net [get_bd_pins $source] [get_bd_pins $sink]
  }
}
connect clocks/clk_out1 card/aclk reset/slowest_sync_clk registers/aclk memory/aclk ps/maxihpm0_fpd_aclk \
  ps/saxihpc0_fpd_aclk
connect clocks/clk_out2 card/clk90
connect clocks/clk_out3 card/clk300
connect clocks/clk_out4 card/clk500
connect clocks/locked reset/dcm_locked
connect ps/pl_resetn0 reset/ext_reset_in
connect reset/peripheral_aresetn card/aresetn registers/aresetn memory/aresetn
connect card/irq ps/pl_ps_irq0
connect_bd_intf_net [get_bd_intf_pins ps/M_AXI_HPM0_FPD] [get_bd_intf_pins registers/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins registers/M00_AXI] [get_bd_intf_pins card/s_axil]
connect_bd_intf_net [get_bd_intf_pins card/m_axi] [get_bd_intf_pins memory/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins memory/M00_AXI] [get_bd_intf_pins ps/S_AXI_HPC0_FPD]

# Pins, by the names that zcu104.xdc has.
set reference [create_bd_intf_port -mode Slave -vlnv xilinx.com:interface:diff_clock_rtl:1.0 ref_clk]
set_property CONFIG.FREQ_HZ 125000000 $reference
connect_bd_intf_net $reference [get_bd_intf_pins clocks/CLK_IN1_D]
foreach port {0 1 2 3} {
  foreach bus {rgmii mdio} {
    set pins [create_bd_intf_port -mode Master -vlnv xilinx.com:interface:${bus}_rtl:1.0 $bus$port]
    connect_bd_intf_net $pins [get_bd_intf_pins card/$bus$port]
  }
}
set receiver [create_bd_intf_port -mode Master -vlnv xilinx.com:interface:uart_rtl:1.0 gps]
connect_bd_intf_net $receiver [get_bd_intf_pins card/uart]
foreach name {pps_out ref_clk_oe ref_clk_fsel} {
  connect_bd_net [create_bd_port -dir O $name] [get_bd_pins card/$name]
}
connect_bd_net [create_bd_port -dir O -from 3 -to 0 phy_reset_n] [get_bd_pins card/phy_reset_n]
connect_bd_net [create_bd_port -dir I pps_in] [get_bd_pins card/pps_in]

assign_bd_address -offset 0xA0000000 -range 128K -target_address_space [get_bd_addr_spaces ps/Data] \
  [get_bd_addr_segs card/s_axil/registers]
assign_bd_address
validate_bd_design
save_bd_design
set design [get_files twinstamp.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top twinstamp_wrapper [current_fileset]
generate_target all $design

add_files -fileset constrs_1 -norecurse [file join $root hdl boards zcu104 zcu104.xdc]
# The crossings' constraints look for what they constrain, so only the whole design has it.
set crossings [lsort [glob [file join $ip constraints *.tcl]]]
add_files -fileset constrs_1 -norecurse $crossings
set_property used_in_synthesis false [get_files $crossings]
set_property processing_order LATE [get_files $crossings]
update_compile_order -fileset sources_1

launch_runs impl_1 -to_step write_bitstream -jobs $jobs
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} {
  error "implementation did not come to its end: see [file join $out project]"
}
open_run impl_1
report_timing_summary -file [file join $out timing.rpt]
report_utilization -file [file join $out utilization.rpt]
report_cdc -details -file [file join $out crossings.rpt]
report_bus_skew -file [file join $out bus_skew.rpt]
# The two ways from the PPS pin, and those to it: what docs/board-zcu104.md calls routes.
report_timing -from [get_ports pps_in] -max_paths 4 -nworst 2 -file [file join $out pps_in.rpt]
report_timing -to [get_ports pps_out] -max_paths 4 -nworst 2 -file [file join $out pps_out.rpt]
foreach limit {STATS.WNS STATS.WHS} {
  set slack [get_property $limit [get_runs impl_1]]
  if {$slack < 0} {
    error "timing is not met, $limit = $slack ns: see [file join $out timing.rpt]"
  }
}
set project [get_property directory [current_project]]
file copy -force [file join $project project.runs impl_1 twinstamp_wrapper.bit] [file join $out twinstamp.bit]
file copy -force [file join $project project.gen sources_1 bd twinstamp hw_handoff twinstamp.hwh] \
  [file join $out twinstamp.hwh]
file copy -force [file join $root hdl boards zcu104 phys.toml] [file join $out twinstamp.phys.toml]
puts "made [file join $out twinstamp.bit]"
