"""`keras_vit publish` and `keras_vit rollback`: versions on a server."""

from keras_vit.cli.console import warn
from keras_vit.export.publish import changed_for_clients, publish_version, roll_back


def publish(options):
    """Copies a SavedModel to a server's folder as its next version."""
    path = publish_version(options.source, options.to, options.version, options.keep)
    print(f"published: {path}")
    if changed := changed_for_clients(path):
        warn(f"differs from the version before: {', '.join(changed)}")


def rollback(options):
    """Publishes an older version again, under the next number."""
    path, number = roll_back(options.directory, options.to, options.keep)
    print(f"published: {path}, with the content of version {number}")
