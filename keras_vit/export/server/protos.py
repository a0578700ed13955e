"""Messages of TF Serving that tensorflow-serving-api lacks: those of `batching.config` and `monitoring.config`.

Source: `servables/tensorflow/session_bundle_config.proto` and `config/monitoring_config.proto` of TF Serving.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_PACKAGE = "tensorflow.serving"


def _message(name, messages):
    """Builds a message class.

    Args:
        name: str, one of the messages.
        messages: dict from name to fields `(name, number, type, repeated)`; a type with a dot is that of a message.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in messages.items():
        proto = file.message_type.add(name=message)
        for key, number, kind, repeated in fields:
            field = proto.field.add(name=key, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if "." in kind:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


BatchingParameters = _message(
    "BatchingParameters",
    {
        "BatchingParameters": [
            ("max_batch_size", 1, "google.protobuf.Int64Value", False),
            ("batch_timeout_micros", 2, "google.protobuf.Int64Value", False),
            ("max_enqueued_batches", 3, "google.protobuf.Int64Value", False),
            ("num_batch_threads", 4, "google.protobuf.Int64Value", False),
            ("thread_pool_name", 5, "google.protobuf.StringValue", False),
            ("allowed_batch_sizes", 6, "INT64", True),
            ("pad_variable_length_inputs", 7, "BOOL", False),
        ]
    },
)
MonitoringConfig = _message(
    "MonitoringConfig",
    {
        "PrometheusConfig": [("enable", 1, "BOOL", False), ("path", 2, "STRING", False)],
        "MonitoringConfig": [("prometheus_config", 1, "tensorflow.serving.PrometheusConfig", False)],
    },
)
