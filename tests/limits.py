"""How long tests wait for what they have started: against hanging alone, never as a measure of speed."""

TIME_LIMIT_S = 600
