"""How long tests wait for what they have started: only against hanging, never as a measure of speed."""

TIME_LIMIT_S = 600
