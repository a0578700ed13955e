"""Training pipelines that run on the workers of a `tf.data` service.

The dispatcher assigns every piece of the run to one worker. Every batch equals one that the run would have made
itself; a stream gives every example once an epoch. Batches arrive as they are finished: their order differs between
runs, and a resumed run may see some of the last batches again.
"""

import dataclasses
import socket

import tensorflow as tf

from keras_vit.data.pipeline.epochs import EpochSchedule
from keras_vit.data.seeds import shuffled
from keras_vit.data.sources.encoded import BLOCK, CYCLE

_TIMEOUT = 30.0  # seconds
PIECE = 16  # consecutive batches that one worker of the service makes


@dataclasses.dataclass(frozen=True)
class DataService:
    """A `tf.data` service that makes the batches.

    Args:
        address: str. Of the dispatcher: `grpc://host:port`. Files must have the same paths on the service's workers.
        job: str or `None`. Job name shared by the workers of one run, so that each batch goes to one of them; it must
            be new at every start of a run. Default `None`: there is one worker.
    """

    address: str
    job: str | None = None

    def check_reachable(self):
        """Raises a `ValueError` unless the dispatcher answers; TensorFlow would retry silently for an hour."""
        host, _, port = self.address.partition("://")[2].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"a tf.data service must answer at its address. Received: service={self.address!r} ({error})"
            ) from None

    def distribute(self, dataset):
        """Lets the service compute the elements of a dataset."""
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        return dataset.apply(tf.data.experimental.service.distribute(policy, self.address, job_name=self.job))


class ServedSchedule(EpochSchedule):
    """An `EpochSchedule` in pieces: a service divides the numbers of the outermost dataset among its workers."""

    is_served = True

    def flat_map(self, one_epoch, per_step):
        pieces = -(-self.steps // PIECE)

        def one_piece(number):
            epoch, piece = number // pieces, number % pieces
            return one_epoch(epoch).skip(piece * PIECE * per_step).take(PIECE * per_step)

        first = self.first_epoch * pieces + self.first_step // PIECE
        return tf.data.Dataset.range(first, self.epochs * pieces).flat_map(one_piece)


def served_schedule(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, shard):
    """Makes the schedule of a run whose batches a service makes, each for one worker of the run.

    With several workers it has one epoch more than the run, since one worker may fetch a batch that another needs.

    Raises:
        ValueError: if the workers do not divide the batch.
    """
    count = shard.count if shard else 1
    if batch_size % count:
        raise ValueError(
            "a service makes batches of one size: batch_size must be a multiple of the number of workers. "
            f"Received: batch_size={batch_size}, {count} workers"
        )
    epochs += count > 1
    return ServedSchedule(batch_size // count, steps * count, epochs, seed, first_epoch, first_step * count, repeats)


def served_stream(split, schedule):
    """Makes a dataset of `(number, record)` of a stream, in which a service divides the files of all epochs.

    It has one epoch more than the run, since the last, incomplete batch of every service worker is dropped.

    Args:
        split: `EncodedShards`.
        schedule: `ServedSchedule`.
    """
    files, examples = len(split.shards), sum(split.counts)
    # The seed of the traced function: the order must not depend on TensorFlow's global seed.
    tf.random.set_seed(1)

    def one_file(number):
        epoch, index = number // files, number % files
        file = tf.gather(tf.constant(split.shards, tf.int64), shuffled(files, schedule.seed, epoch)[index])
        records = split.records_of(file)
        records = records.map(lambda example, record: (epoch * examples + example, record))
        if schedule.repeats > 1:
            records = records.flat_map(lambda *record: tf.data.Dataset.from_tensors(record).repeat(schedule.repeats))
        return records

    first = schedule.first_epoch * files + files * schedule.first_step // schedule.steps
    numbers = tf.data.Dataset.range(first, (schedule.epochs + 1) * files)
    records = numbers.interleave(one_file, cycle_length=min(CYCLE, files), block_length=BLOCK)
    return records.shuffle(min(split.buffer, len(split)), seed=schedule.seed)
