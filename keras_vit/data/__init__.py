"""Images from files, arrays and TensorFlow Datasets to batches: `tf.data` only."""

from keras_vit.data.encoded import EncodedFiles, EncodedShards
from keras_vit.data.folder import FolderSplit, ImageFolder, find_image_folder
from keras_vit.data.memory import UnreadableFile, read_images
from keras_vit.data.part import Part
from keras_vit.data.pipeline import evaluation_dataset, steps_of_epoch, training_dataset
from keras_vit.data.readable import expected_end, iterators_end, plain_errors
from keras_vit.data.service import Service
from keras_vit.data.sources import Source, array_source, load_source, train_and_evaluation
from keras_vit.data.split import Split
from keras_vit.data.tfrecords import write_tfrecords

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
