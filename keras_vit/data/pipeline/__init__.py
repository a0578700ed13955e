"""From a source to batches: order of epochs, shards of workers, map functions."""
