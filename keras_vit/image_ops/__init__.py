"""Images as graph operations: the one decoder and the one resize of data sets and served models."""
