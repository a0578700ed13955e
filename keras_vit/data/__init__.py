"""Images from files, arrays and TensorFlow Datasets to batches: `tf.data` only."""

from keras_vit.data.pipeline import evaluation_dataset, training_dataset
from keras_vit.data.sources import Source, Split, load_source

__all__ = ["Source", "Split", "evaluation_dataset", "load_source", "training_dataset"]
