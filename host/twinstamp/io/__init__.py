# SPDX-License-Identifier: Apache-2.0
"""Frames in and out: capture files and network interfaces."""

from twinstamp.io.files import CaptureReader, CaptureWriter, create_capture, open_capture

__all__ = ["CaptureReader", "CaptureWriter", "create_capture", "open_capture"]
