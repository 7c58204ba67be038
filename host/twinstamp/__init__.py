# SPDX-License-Identifier: Apache-2.0
"""Twinstamp: stamped frames in, duplicates out, flows balanced, nothing unaccounted."""

__version__ = "0.1.0"
