"""`keras_vit predict --server`, which imports neither Keras nor TensorFlow."""

from keras_vit_client import connect
from keras_vit_client.image_files import find_images
from keras_vit_client.predictions import check_target, report


def predict(options):
    """Prints or writes the best classes of images, by a model on a server."""
    check_target(options.to)
    images = find_images(options.images)
    with connect(options.server) as client:
        report(images, _answers(client, images), options.top_k, options.to, form=options.form)


def _answers(client, images):
    """Yields the answer for each image, or the reason, a str, why there is none."""
    for start in range(0, len(images), client.max_batch_size):
        batch = [_read(path) for path in images[start : start + client.max_batch_size]]
        read = [data for data in batch if isinstance(data, bytes)]
        answers = iter(client.classify(read) if read else [])
        for data in batch:
            answer = next(answers) if isinstance(data, bytes) else data
            yield "the server cannot decode it" if answer is None else answer


def _read(path):
    """Returns the bytes of a file, or the error, a str."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
