"""Data sources: arrays, folders, TFRecords, TensorFlow Datasets, synthetic images."""
