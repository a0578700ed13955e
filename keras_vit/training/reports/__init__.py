"""Progress bar, run record and the plot of a run."""
