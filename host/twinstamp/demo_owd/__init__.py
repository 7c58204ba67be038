# SPDX-License-Identifier: Apache-2.0
"""make demo-owd: one-way delay between two sites over hours of experiment time (docs/demo-owd.md)."""
