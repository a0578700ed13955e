"""Published weights: the catalog and resumable downloads."""
