"""Images from files, arrays and TensorFlow Datasets to batches: `tf.data` only."""

from keras_vit.data.pipeline.datasets import evaluation_dataset, steps_of_epoch, training_dataset
from keras_vit.data.pipeline.tf_data_service import Service
from keras_vit.data.pipeline.worker_shard import Part
from keras_vit.data.sources.arrays import Split
from keras_vit.data.sources.encoded import EncodedFiles, EncodedShards
from keras_vit.data.sources.folder import FolderSplit, ImageFolder, find_image_folder
from keras_vit.data.sources.load import Source, array_source, load_source, train_and_evaluation
from keras_vit.data.sources.memory import UnreadableFile, read_images
from keras_vit.data.sources.tfrecords import write_tfrecords
from keras_vit.data.unreadable import expected_end, iterators_end, plain_errors

__all__ = [
    "EncodedFiles",
    "EncodedShards",
    "FolderSplit",
    "ImageFolder",
    "Part",
    "Service",
    "Source",
    "Split",
    "UnreadableFile",
    "array_source",
    "evaluation_dataset",
    "expected_end",
    "find_image_folder",
    "iterators_end",
    "load_source",
    "plain_errors",
    "read_images",
    "steps_of_epoch",
    "train_and_evaluation",
    "training_dataset",
    "write_tfrecords",
]
