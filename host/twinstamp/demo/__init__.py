# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the appliance at work on real traffic (docs/demo.md).

world builds a small network in namespaces and lets real programs talk through it; made writes a capture
of its own where namespaces cannot be had; dpi runs nDPI on an interface or a file; endpoints counts what
the endpoints themselves sent; verdict puts it all side by side.
"""
