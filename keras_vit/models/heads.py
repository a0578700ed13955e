"""The classification head of all models."""

import keras

HEADS = ("head", "head_dist")  # names of the layers of a classifier


def classifier(config, policy, name, use_bias=True):
    """A head; its weights begin small, so that training starts from nearly uniform predictions."""
    return keras.layers.Dense(
        config.num_classes,
        activation=config.classifier_activation,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        dtype=policy.variable_dtype,
        name=name,
    )
