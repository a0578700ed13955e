"""Images from files, arrays and TensorFlow Datasets to batches: `tf.data` only."""

from keras_vit.data.pipeline import evaluation_dataset, training_dataset
from keras_vit.data.sources import Source, Split, load_source
from keras_vit.data.stream import Stream, evaluation_stream

__all__ = ["Source", "Split", "Stream", "evaluation_dataset", "evaluation_stream", "load_source", "training_dataset"]
