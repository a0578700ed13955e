"""`keras_vit publish` and `keras_vit rollback`: versions for a server."""

from keras_vit.export.publish import publish_version, roll_back


def publish(options):
    """Copies a SavedModel to a server's folder as its next version."""
    path = publish_version(options.source, options.to, options.number, options.keep)
    print(f"published: {path}")


def rollback(options):
    """Publishes an older version's content again, as the next version."""
    path, number = roll_back(options.directory, options.to, options.keep)
    print(f"published: {path}, with the content of version {number}")
