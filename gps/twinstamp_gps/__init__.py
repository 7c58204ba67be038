# SPDX-License-Identifier: Apache-2.0
"""GPS receivers: access, configuration, simulation; oscillators; clock analysis (docs/receiver.md)."""
