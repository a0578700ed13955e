"""`keras_vit predict --server`: starts without Keras and TensorFlow."""

from keras_vit_client import connect
from keras_vit_client.image_files import find_images
from keras_vit_client.predictions import check_target, report


def predict(options):
    """Prints or writes the best classes of images, by a server."""
    check_target(options.to)
    images = find_images(options.images)
    with connect(options.server) as client:
        report(images, _answers(client, images), options.top, options.to)


def _answers(client, images):
    """For each image the server's answer, or why there is none."""
    for start in range(0, len(images), client.max_batch_size):
        batch = [_read(path) for path in images[start : start + client.max_batch_size]]
        read = [data for data in batch if isinstance(data, bytes)]
        answers = iter(client.classify(read) if read else [])
        for data in batch:
            answer = next(answers) if isinstance(data, bytes) else data
            yield "the server cannot decode it" if answer is None else answer


def _read(path):
    """The bytes of a file, or why there are none."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
