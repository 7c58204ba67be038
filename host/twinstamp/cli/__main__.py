# SPDX-License-Identifier: Apache-2.0
import sys

from twinstamp.cli import main

sys.exit(main())
