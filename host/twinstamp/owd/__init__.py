# SPDX-License-Identifier: Apache-2.0
"""One-way delay from trains of test packets (docs/owd.md).

``report_captures`` makes a Report of captures; ``Collector`` takes batches as they come, ``report_of`` what
it holds.
"""

from twinstamp.owd.arrivals import Arrivals, Collector, Sent, TrainKey
from twinstamp.owd.report import Options, Report, TrainReport, report_captures, report_of, train_report

__all__ = [
    "Arrivals", "Collector", "Options", "Report", "Sent", "TrainKey", "TrainReport", "report_captures",
    "report_of", "train_report",
]  # fmt: skip
