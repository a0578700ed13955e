"""The work of a training pipeline done by other machines: those of a `tf.data` service.

The service's dispatcher deals out pieces of the run to its workers, each piece once. Every batch is one that the run
would have made itself; of a stream every example comes once an epoch. But batches come as they are done: two runs
differ in their order, and a run that goes on may see some of the last batches again.
"""

import dataclasses
import socket

import tensorflow as tf

from keras_vit.data.pipeline.epochs import Course
from keras_vit.data.seeds import shuffled
from keras_vit.data.sources.encoded import BLOCK, CYCLE

_ANSWER = 30.0  # seconds
PIECE = 16  # batches that a worker of the service makes one after the other


@dataclasses.dataclass(frozen=True)
class Service:
    """Where the work is done.

    Args:
        address: str. Of the dispatcher: `grpc://host:port`. Files must have the same paths on the service's workers.
        job: str or `None`. A name that the workers of one run share, so that each batch goes to one of them; another
            one for every start of a run. Default `None`: there is one worker.
    """

    address: str
    job: str | None = None

    def check(self):
        """Raises `ValueError` unless somebody answers at the address: TensorFlow would ask again for an hour, deaf."""
        host, _, port = self.address.partition("://")[2].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"a tf.data service must answer at its address. Received: service={self.address!r} ({error})"
            ) from None

    def does(self, dataset):
        """A data set whose elements the service makes."""
        kind = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        return dataset.apply(tf.data.experimental.service.distribute(kind, self.address, job_name=self.job))


class ServedCourse(Course):
    """A `Course` in pieces, which a service deals out: the numbers of the outermost data set are what it divides."""

    is_served = True

    def flat_map(self, one_epoch, per_step):
        pieces = -(-self.steps // PIECE)

        def one_piece(number):
            epoch, piece = number // pieces, number % pieces
            return one_epoch(epoch).skip(piece * PIECE * per_step).take(PIECE * per_step)

        first = self.first_epoch * pieces + self.first_step // PIECE
        return tf.data.Dataset.range(first, self.epochs * pieces).flat_map(one_piece)


def served_course(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, part):
    """The course of a run whose batches a service makes, each for one of the workers of a `Part`, if there is one.

    For several workers with one epoch more than the run has: one of them may fetch what another still needs.

    Raises:
        ValueError: if the workers do not divide the batch.
    """
    count = part.count if part else 1
    if batch_size % count:
        raise ValueError(
            "a service makes batches of one size for all workers, who must divide the global one. "
            f"Received: batch_size={batch_size}, {count} workers"
        )
    epochs += count > 1
    return ServedCourse(batch_size // count, steps * count, epochs, seed, first_epoch, first_step * count, repeats)


def served_stream(split, course):
    """`(number, record)` of a stream; the files of all epochs are what is dealt out.

    One epoch more than the run has: the last batches of the service's workers are not full, and left out.

    Args:
        split: `EncodedShards`.
        course: `ServedCourse`.
    """
    files, examples = len(split.shards), sum(split.counts)
    # Of the function that is being traced: an order must not depend on TensorFlow's global seed.
    tf.random.set_seed(1)

    def one_file(number):
        epoch, place = number // files, number % files
        shard = tf.gather(tf.constant(split.shards, tf.int64), shuffled(files, course.seed, epoch)[place])
        records = split.records_of(shard)
        records = records.map(lambda example, record: (epoch * examples + example, record))
        if course.repeats > 1:
            records = records.flat_map(lambda *record: tf.data.Dataset.from_tensors(record).repeat(course.repeats))
        return records

    first = course.first_epoch * files + files * course.first_step // course.steps
    numbers = tf.data.Dataset.range(first, (course.epochs + 1) * files)
    records = numbers.interleave(one_file, cycle_length=min(CYCLE, files), block_length=BLOCK)
    return records.shuffle(min(split.buffer, len(split)), seed=course.seed)
