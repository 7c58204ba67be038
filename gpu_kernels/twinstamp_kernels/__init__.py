# SPDX-License-Identifier: Apache-2.0
"""Kernels of Twinstamp on NumPy or CuPy arrays: keys, duplicate window, rules, balance."""
