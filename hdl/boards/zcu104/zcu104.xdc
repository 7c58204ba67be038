# SPDX-License-Identifier: Apache-2.0
# ZCU104 (XCZU7EV-2FFVC1156) with a four-port RGMII card (Opsero Ethernet FMC, four Marvell 88E1510) on its FMC LPC
# connector J5. Not run: no Vivado and no board was at hand.
#
# Pins of the FMC connector: fpgadeveloper/ethernet-fmc-zynq-gem, Vivado/src/constraints/zcu104.xdc (commit 00f8bf6) and
# fpgadeveloper/ethernet-fmc-taxi-eth, Vivado/src/constraints/zcu104.xdc (918b92b), Opsero's own designs, which agree.
# Pins of the PMOD connectors: KutuSystems/zcu104_base, ZCU104_BASE.xdc; which contact of J55 has which of them, see the
# README. RGMII figures: Reduced Gigabit Media Independent Interface 2.0, section 3.3.

# Core clock, from the Ethernet FMC (125 MHz, LVDS); its generator is enabled and told 125 MHz.
set_property -dict {PACKAGE_PIN E15 IOSTANDARD LVDS DIFF_TERM_ADV TERM_100} [get_ports ref_clk_clk_p]
set_property -dict {PACKAGE_PIN E14 IOSTANDARD LVDS DIFF_TERM_ADV TERM_100} [get_ports ref_clk_clk_n]
set_property -dict {PACKAGE_PIN G15 IOSTANDARD LVCMOS18} [get_ports ref_clk_oe]
set_property -dict {PACKAGE_PIN C13 IOSTANDARD LVCMOS18} [get_ports ref_clk_fsel]

# Port 0
set_property -dict {PACKAGE_PIN F17 IOSTANDARD LVCMOS18} [get_ports rgmii0_rxc]
set_property -dict {PACKAGE_PIN F16 IOSTANDARD LVCMOS18} [get_ports rgmii0_rx_ctl]
set_property -dict {PACKAGE_PIN L20 IOSTANDARD LVCMOS18} [get_ports {rgmii0_rd[0]}]
set_property -dict {PACKAGE_PIN K20 IOSTANDARD LVCMOS18} [get_ports {rgmii0_rd[1]}]
set_property -dict {PACKAGE_PIN K19 IOSTANDARD LVCMOS18} [get_ports {rgmii0_rd[2]}]
set_property -dict {PACKAGE_PIN K18 IOSTANDARD LVCMOS18} [get_ports {rgmii0_rd[3]}]
set_property -dict {PACKAGE_PIN L16 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii0_txc]
set_property -dict {PACKAGE_PIN J15 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii0_tx_ctl]
set_property -dict {PACKAGE_PIN L17 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii0_td[0]}]
set_property -dict {PACKAGE_PIN E18 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii0_td[1]}]
set_property -dict {PACKAGE_PIN E17 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii0_td[2]}]
set_property -dict {PACKAGE_PIN J16 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii0_td[3]}]
set_property -dict {PACKAGE_PIN K17 IOSTANDARD LVCMOS18} [get_ports mdio0_mdc]
set_property -dict {PACKAGE_PIN G19 IOSTANDARD LVCMOS18} [get_ports mdio0_mdio_io]
set_property -dict {PACKAGE_PIN J17 IOSTANDARD LVCMOS18} [get_ports {phy_reset_n[0]}]

# Port 1
set_property -dict {PACKAGE_PIN H18 IOSTANDARD LVCMOS18} [get_ports rgmii1_rxc]
set_property -dict {PACKAGE_PIN H17 IOSTANDARD LVCMOS18} [get_ports rgmii1_rx_ctl]
set_property -dict {PACKAGE_PIN H19 IOSTANDARD LVCMOS18} [get_ports {rgmii1_rd[0]}]
set_property -dict {PACKAGE_PIN H16 IOSTANDARD LVCMOS18} [get_ports {rgmii1_rd[1]}]
set_property -dict {PACKAGE_PIN K15 IOSTANDARD LVCMOS18} [get_ports {rgmii1_rd[2]}]
set_property -dict {PACKAGE_PIN G16 IOSTANDARD LVCMOS18} [get_ports {rgmii1_rd[3]}]
set_property -dict {PACKAGE_PIN A12 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii1_txc]
set_property -dict {PACKAGE_PIN D16 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii1_tx_ctl]
set_property -dict {PACKAGE_PIN F18 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii1_td[0]}]
set_property -dict {PACKAGE_PIN A13 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii1_td[1]}]
set_property -dict {PACKAGE_PIN D17 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii1_td[2]}]
set_property -dict {PACKAGE_PIN C17 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii1_td[3]}]
set_property -dict {PACKAGE_PIN F15 IOSTANDARD LVCMOS18} [get_ports mdio1_mdc]
set_property -dict {PACKAGE_PIN C12 IOSTANDARD LVCMOS18} [get_ports mdio1_mdio_io]
set_property -dict {PACKAGE_PIN C16 IOSTANDARD LVCMOS18} [get_ports {phy_reset_n[1]}]

# Port 2
set_property -dict {PACKAGE_PIN F11 IOSTANDARD LVCMOS18} [get_ports rgmii2_rxc]
set_property -dict {PACKAGE_PIN F12 IOSTANDARD LVCMOS18} [get_ports rgmii2_rx_ctl]
set_property -dict {PACKAGE_PIN E12 IOSTANDARD LVCMOS18} [get_ports {rgmii2_rd[0]}]
set_property -dict {PACKAGE_PIN D12 IOSTANDARD LVCMOS18} [get_ports {rgmii2_rd[1]}]
set_property -dict {PACKAGE_PIN B11 IOSTANDARD LVCMOS18} [get_ports {rgmii2_rd[2]}]
set_property -dict {PACKAGE_PIN A11 IOSTANDARD LVCMOS18} [get_ports {rgmii2_rd[3]}]
set_property -dict {PACKAGE_PIN B10 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii2_txc]
set_property -dict {PACKAGE_PIN C7 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii2_tx_ctl]
set_property -dict {PACKAGE_PIN C11 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii2_td[0]}]
set_property -dict {PACKAGE_PIN H13 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii2_td[1]}]
set_property -dict {PACKAGE_PIN H12 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii2_td[2]}]
set_property -dict {PACKAGE_PIN A10 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii2_td[3]}]
set_property -dict {PACKAGE_PIN B6 IOSTANDARD LVCMOS18} [get_ports mdio2_mdc]
set_property -dict {PACKAGE_PIN C6 IOSTANDARD LVCMOS18} [get_ports mdio2_mdio_io]
set_property -dict {PACKAGE_PIN A6 IOSTANDARD LVCMOS18} [get_ports {phy_reset_n[2]}]

# Port 3
set_property -dict {PACKAGE_PIN D11 IOSTANDARD LVCMOS18} [get_ports rgmii3_rxc]
set_property -dict {PACKAGE_PIN D10 IOSTANDARD LVCMOS18} [get_ports rgmii3_rx_ctl]
set_property -dict {PACKAGE_PIN B9 IOSTANDARD LVCMOS18} [get_ports {rgmii3_rd[0]}]
set_property -dict {PACKAGE_PIN A8 IOSTANDARD LVCMOS18} [get_ports {rgmii3_rd[1]}]
set_property -dict {PACKAGE_PIN B8 IOSTANDARD LVCMOS18} [get_ports {rgmii3_rd[2]}]
set_property -dict {PACKAGE_PIN A7 IOSTANDARD LVCMOS18} [get_ports {rgmii3_rd[3]}]
set_property -dict {PACKAGE_PIN L13 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii3_txc]
set_property -dict {PACKAGE_PIN E9 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports rgmii3_tx_ctl]
set_property -dict {PACKAGE_PIN J10 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii3_td[0]}]
set_property -dict {PACKAGE_PIN M13 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii3_td[1]}]
set_property -dict {PACKAGE_PIN F7 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii3_td[2]}]
set_property -dict {PACKAGE_PIN E7 IOSTANDARD LVCMOS18 SLEW FAST DRIVE 12} [get_ports {rgmii3_td[3]}]
set_property -dict {PACKAGE_PIN D9 IOSTANDARD LVCMOS18} [get_ports mdio3_mdc]
set_property -dict {PACKAGE_PIN F8 IOSTANDARD LVCMOS18} [get_ports mdio3_mdio_io]
set_property -dict {PACKAGE_PIN E8 IOSTANDARD LVCMOS18} [get_ports {phy_reset_n[3]}]

# GPS receiver on PMOD0 (J55), 3.3 V. An HD bank: no deserialiser there (UG571, table 2-19).
set_property -dict {PACKAGE_PIN G8 IOSTANDARD LVCMOS33 PULLTYPE PULLDOWN} [get_ports pps_in]
set_property -dict {PACKAGE_PIN H8 IOSTANDARD LVCMOS33 SLEW FAST DRIVE 12} [get_ports pps_out]
set_property -dict {PACKAGE_PIN G7 IOSTANDARD LVCMOS33 PULLTYPE PULLUP} [get_ports gps_rxd]
set_property -dict {PACKAGE_PIN H7 IOSTANDARD LVCMOS33} [get_ports gps_txd]

# Receive clocks. Those of ports 1 and 3 are on pins that no clock buffer is near (LA01, LA18 are not GC pins here).
create_clock -period 8.000 -name rgmii0_rxc [get_ports rgmii0_rxc]
create_clock -period 8.000 -name rgmii1_rxc [get_ports rgmii1_rxc]
create_clock -period 8.000 -name rgmii2_rxc [get_ports rgmii2_rxc]
create_clock -period 8.000 -name rgmii3_rxc [get_ports rgmii3_rxc]
set_property CLOCK_DEDICATED_ROUTE FALSE [get_nets -of_objects [get_pins -filter {DIRECTION == OUT} -of_objects [get_cells -filter {REF_NAME =~ IBUF*} -of_objects [get_nets -of_objects [get_ports rgmii1_rxc]]]]]
set_property CLOCK_DEDICATED_ROUTE FALSE [get_nets -of_objects [get_pins -filter {DIRECTION == OUT} -of_objects [get_cells -filter {REF_NAME =~ IBUF*} -of_objects [get_nets -of_objects [get_ports rgmii3_rxc]]]]]
# Clock buffers near their pins (banks 67 and 68), as the designs named above found them: sites that drive their
# region's distribution directly. They and the input delays (RxDelayPs0 to 3 of the IP) decide the receive timing.
set_property LOC BUFGCE_X1Y96 [get_cells -hierarchical -filter {NAME =~ *gen_port?0?.u_pins/u_rx_clk}]
set_property USER_CLOCK_ROOT X2Y4 [get_nets -of_objects [get_pins -filter {REF_PIN_NAME == O} -of_objects [get_cells -hierarchical -filter {NAME =~ *gen_port?0?.u_pins/u_rx_clk}]]]
set_property LOC BUFGCE_X1Y103 [get_cells -hierarchical -filter {NAME =~ *gen_port?1?.u_pins/u_rx_clk}]
set_property USER_CLOCK_ROOT X2Y4 [get_nets -of_objects [get_pins -filter {REF_PIN_NAME == O} -of_objects [get_cells -hierarchical -filter {NAME =~ *gen_port?1?.u_pins/u_rx_clk}]]]
set_property LOC BUFGCE_X1Y120 [get_cells -hierarchical -filter {NAME =~ *gen_port?2?.u_pins/u_rx_clk}]
set_property USER_CLOCK_ROOT X2Y5 [get_nets -of_objects [get_pins -filter {REF_PIN_NAME == O} -of_objects [get_cells -hierarchical -filter {NAME =~ *gen_port?2?.u_pins/u_rx_clk}]]]
set_property LOC BUFGCE_X1Y127 [get_cells -hierarchical -filter {NAME =~ *gen_port?3?.u_pins/u_rx_clk}]
set_property USER_CLOCK_ROOT X2Y5 [get_nets -of_objects [get_pins -filter {REF_PIN_NAME == O} -of_objects [get_cells -hierarchical -filter {NAME =~ *gen_port?3?.u_pins/u_rx_clk}]]]
# Pins on bit slices that the input delays' calibration uses; nobody listens to them before it is over.
set_property UNAVAILABLE_DURING_CALIBRATION TRUE [get_ports rgmii2_tx_ctl]
set_property UNAVAILABLE_DURING_CALIBRATION TRUE [get_ports rgmii2_txc]
set_property UNAVAILABLE_DURING_CALIBRATION TRUE [get_ports rgmii1_rxc]
set_property UNAVAILABLE_DURING_CALIBRATION TRUE [get_ports rgmii3_rxc]

# Receive data: the PHY delays its clock; data stand still from 1.2 ns before each edge to 1.2 ns after it (TsetupT,
# TholdT).
set_input_delay -clock rgmii0_rxc -max 2.800 [get_ports {rgmii0_rd[*] rgmii0_rx_ctl}]
set_input_delay -clock rgmii0_rxc -min 1.200 [get_ports {rgmii0_rd[*] rgmii0_rx_ctl}]
set_input_delay -clock rgmii0_rxc -clock_fall -add_delay -max 2.800 [get_ports {rgmii0_rd[*] rgmii0_rx_ctl}]
set_input_delay -clock rgmii0_rxc -clock_fall -add_delay -min 1.200 [get_ports {rgmii0_rd[*] rgmii0_rx_ctl}]
set_input_delay -clock rgmii1_rxc -max 2.800 [get_ports {rgmii1_rd[*] rgmii1_rx_ctl}]
set_input_delay -clock rgmii1_rxc -min 1.200 [get_ports {rgmii1_rd[*] rgmii1_rx_ctl}]
set_input_delay -clock rgmii1_rxc -clock_fall -add_delay -max 2.800 [get_ports {rgmii1_rd[*] rgmii1_rx_ctl}]
set_input_delay -clock rgmii1_rxc -clock_fall -add_delay -min 1.200 [get_ports {rgmii1_rd[*] rgmii1_rx_ctl}]
set_input_delay -clock rgmii2_rxc -max 2.800 [get_ports {rgmii2_rd[*] rgmii2_rx_ctl}]
set_input_delay -clock rgmii2_rxc -min 1.200 [get_ports {rgmii2_rd[*] rgmii2_rx_ctl}]
set_input_delay -clock rgmii2_rxc -clock_fall -add_delay -max 2.800 [get_ports {rgmii2_rd[*] rgmii2_rx_ctl}]
set_input_delay -clock rgmii2_rxc -clock_fall -add_delay -min 1.200 [get_ports {rgmii2_rd[*] rgmii2_rx_ctl}]
set_input_delay -clock rgmii3_rxc -max 2.800 [get_ports {rgmii3_rd[*] rgmii3_rx_ctl}]
set_input_delay -clock rgmii3_rxc -min 1.200 [get_ports {rgmii3_rd[*] rgmii3_rx_ctl}]
set_input_delay -clock rgmii3_rxc -clock_fall -add_delay -max 2.800 [get_ports {rgmii3_rd[*] rgmii3_rx_ctl}]
set_input_delay -clock rgmii3_rxc -clock_fall -add_delay -min 1.200 [get_ports {rgmii3_rd[*] rgmii3_rx_ctl}]

# Transmit data: the clock leaves a quarter later; the PHY wants 1.0 ns before and after each edge (TsetupR, TholdR).
create_generated_clock -name rgmii0_txc -divide_by 1 -source [get_pins -hierarchical -filter {NAME =~ *gen_port?0?.u_pins/u_txc/C}] [get_ports rgmii0_txc]
set_output_delay -clock rgmii0_txc -max 1.000 [get_ports {rgmii0_td[*] rgmii0_tx_ctl}]
set_output_delay -clock rgmii0_txc -min -1.000 [get_ports {rgmii0_td[*] rgmii0_tx_ctl}]
set_output_delay -clock rgmii0_txc -clock_fall -add_delay -max 1.000 [get_ports {rgmii0_td[*] rgmii0_tx_ctl}]
set_output_delay -clock rgmii0_txc -clock_fall -add_delay -min -1.000 [get_ports {rgmii0_td[*] rgmii0_tx_ctl}]
create_generated_clock -name rgmii1_txc -divide_by 1 -source [get_pins -hierarchical -filter {NAME =~ *gen_port?1?.u_pins/u_txc/C}] [get_ports rgmii1_txc]
set_output_delay -clock rgmii1_txc -max 1.000 [get_ports {rgmii1_td[*] rgmii1_tx_ctl}]
set_output_delay -clock rgmii1_txc -min -1.000 [get_ports {rgmii1_td[*] rgmii1_tx_ctl}]
set_output_delay -clock rgmii1_txc -clock_fall -add_delay -max 1.000 [get_ports {rgmii1_td[*] rgmii1_tx_ctl}]
set_output_delay -clock rgmii1_txc -clock_fall -add_delay -min -1.000 [get_ports {rgmii1_td[*] rgmii1_tx_ctl}]
create_generated_clock -name rgmii2_txc -divide_by 1 -source [get_pins -hierarchical -filter {NAME =~ *gen_port?2?.u_pins/u_txc/C}] [get_ports rgmii2_txc]
set_output_delay -clock rgmii2_txc -max 1.000 [get_ports {rgmii2_td[*] rgmii2_tx_ctl}]
set_output_delay -clock rgmii2_txc -min -1.000 [get_ports {rgmii2_td[*] rgmii2_tx_ctl}]
set_output_delay -clock rgmii2_txc -clock_fall -add_delay -max 1.000 [get_ports {rgmii2_td[*] rgmii2_tx_ctl}]
set_output_delay -clock rgmii2_txc -clock_fall -add_delay -min -1.000 [get_ports {rgmii2_td[*] rgmii2_tx_ctl}]
create_generated_clock -name rgmii3_txc -divide_by 1 -source [get_pins -hierarchical -filter {NAME =~ *gen_port?3?.u_pins/u_txc/C}] [get_ports rgmii3_txc]
set_output_delay -clock rgmii3_txc -max 1.000 [get_ports {rgmii3_td[*] rgmii3_tx_ctl}]
set_output_delay -clock rgmii3_txc -min -1.000 [get_ports {rgmii3_td[*] rgmii3_tx_ctl}]
set_output_delay -clock rgmii3_txc -clock_fall -add_delay -max 1.000 [get_ports {rgmii3_td[*] rgmii3_tx_ctl}]
set_output_delay -clock rgmii3_txc -clock_fall -add_delay -min -1.000 [get_ports {rgmii3_td[*] rgmii3_tx_ctl}]

# PPS: both ways from the pin short, and each register of the output near the pin. report_timing on these says what
# pps.cable_delay and pps.output_delay have to hold; half the difference of the two ways in is an error.
set_max_delay -datapath_only -from [get_ports pps_in] -to [get_cells -hierarchical -filter {NAME =~ *u_sampler/even_q_reg || NAME =~ *u_sampler/odd_q_reg}] 3.000
set_max_delay -from [get_cells -hierarchical -filter {NAME =~ *u_output/even_q_reg || NAME =~ *u_output/odd_q_reg}] -to [get_ports pps_out] 6.000

# Slow, or passing synchronisers; receive clocks and core clock cross where hdl/constraints/vivado says, nowhere else.
set_false_path -from [get_ports {gps_rxd mdio0_mdio_io mdio1_mdio_io mdio2_mdio_io mdio3_mdio_io}]
set_false_path -to [get_ports {gps_txd mdio0_mdc mdio1_mdc mdio2_mdc mdio3_mdc mdio0_mdio_io mdio1_mdio_io mdio2_mdio_io mdio3_mdio_io}]
set_false_path -to [get_ports {phy_reset_n[*] ref_clk_oe ref_clk_fsel}]
set_false_path -to [get_pins -hierarchical -filter {NAME =~ *u_card/u_delays/RST}]

set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
