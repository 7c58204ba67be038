# SPDX-License-Identifier: Apache-2.0
"""A NIC's own clock (PHC) disciplined by a receiver's pulses, with a bound (docs/nic-clock.md)."""
