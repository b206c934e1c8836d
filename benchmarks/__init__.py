"""Speed, measured side by side in one process: `make bench`."""

import os

# Before torch is imported: its profiler would announce each start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
