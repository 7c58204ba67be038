# SPDX-License-Identifier: Apache-2.0
"""GPS receivers and clocks: access, configuration, simulation, analysis (docs/receiver.md)."""
