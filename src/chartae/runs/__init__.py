"""Tables of runs: many independent, seeded computations, each of which gives one row.

A run is a function of its settings. Rows are kept in a folder under the hash of their settings, so
that interrupted work goes on where it stopped. This package does not depend on models.
"""

from chartae.runs.execution import Progress, execute
from chartae.runs.settings import grid, run_key
from chartae.runs.table import Outcome, Row, RunTable, finite, write_table

__all__ = [
    "Outcome",
    "Progress",
    "Row",
    "RunTable",
    "execute",
    "finite",
    "grid",
    "run_key",
    "write_table",
]
