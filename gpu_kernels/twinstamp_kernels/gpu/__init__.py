# SPDX-License-Identifier: Apache-2.0
"""The kernels of cuda/ on a device: launcher, window, rules and balance (docs/gpu.md)."""
