"""Input pipelines: epoch order, worker shards, example transforms, batches."""
