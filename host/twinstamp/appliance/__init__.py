# SPDX-License-Identifier: Apache-2.0
"""The appliance: a mirror feed in, clean and flow-complete traffic out to DPI servers (docs/appliance.md)."""

from twinstamp.appliance.config import ApplianceConfig, load_appliance, parse_appliance
from twinstamp.appliance.run import Appliance
from twinstamp.appliance.stages import Clean, Stage

__all__ = ["Appliance", "ApplianceConfig", "Clean", "Stage", "load_appliance", "parse_appliance"]
