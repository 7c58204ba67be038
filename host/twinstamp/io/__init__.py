# SPDX-License-Identifier: Apache-2.0
"""Frames in and out: capture files and network interfaces."""
