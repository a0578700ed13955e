"""Data sets of images and their `tf.data` pipelines."""

from keras_vit.data.pipeline.datasets import evaluation_dataset, steps_of_epoch, training_dataset
from keras_vit.data.pipeline.segmentation import masked_evaluation_dataset, masked_training_dataset
from keras_vit.data.pipeline.tf_data_service import DataService
from keras_vit.data.pipeline.worker_shard import WorkerShard
from keras_vit.data.sources.arrays import Split
from keras_vit.data.sources.encoded import EncodedFiles, EncodedShards
from keras_vit.data.sources.folder import FolderSplit, ImageFolder, find_image_folder
from keras_vit.data.sources.load import Source, array_source, load_source, train_and_evaluation
from keras_vit.data.sources.masks import MaskedFiles, load_mask_source
from keras_vit.data.sources.memory import UnreadableFile, read_batches, read_images
from keras_vit.data.sources.tfrecords import write_tfrecords
from keras_vit.data.unreadable import close_iterators, ignore_end_of_data, unwrap_tf_errors

__all__ = [
    "DataService",
    "EncodedFiles",
    "EncodedShards",
    "FolderSplit",
    "ImageFolder",
    "MaskedFiles",
    "Source",
    "Split",
    "UnreadableFile",
    "WorkerShard",
    "array_source",
    "close_iterators",
    "evaluation_dataset",
    "find_image_folder",
    "ignore_end_of_data",
    "load_mask_source",
    "load_source",
    "masked_evaluation_dataset",
    "masked_training_dataset",
    "read_batches",
    "read_images",
    "steps_of_epoch",
    "train_and_evaluation",
    "training_dataset",
    "unwrap_tf_errors",
    "write_tfrecords",
]
