"""Progress bar, run record, plots and per-class reports."""
