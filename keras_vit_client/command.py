"""`keras_vit predict --server`: starts without Keras and TensorFlow."""

from keras_vit_client import connect


def predict(options):
    """Prints the best classes of images, by a server."""
    with connect(options.server) as client:
        answers = client.classify(options.images)
    for path, answer in zip(options.images, answers, strict=True):
        if answer is not None:
            print(f"{path}: " + ", ".join(f"{name} {score:.3f}" for name, score in answer[: options.top]))
    unread = [str(path) for path, answer in zip(options.images, answers, strict=True) if answer is None]
    if unread:
        raise ValueError(f"an image must be a file that the server can decode. Received: {', '.join(unread)}")
