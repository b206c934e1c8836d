"""Studies: many runs in; one table, one set of plots, one report out."""
