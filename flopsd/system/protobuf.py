"""Makes protobuf message classes from a table of their fields, without generated code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOUBLE, INT64, STRING, OPTIONAL, REPEATED = 1, 3, 9, 1, 3  # types and labels of descriptor.proto
_MESSAGE = 11
# Message name -> (field name, field number, label, one of the types above or the name of a message).
Messages = Mapping[str, tuple[tuple[str, int, int, int | str], ...]]


def message_classes(package: str, messages: Messages) -> dict[str, Any]:
    """Return the classes of `messages` by name, in a descriptor pool of their own. Fields that are left out are skipped
    when a message is parsed. Raises ImportError without protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            added = message.field.add(name=field, number=number, label=label)
            added.type = kind if isinstance(kind, int) else _MESSAGE
            if isinstance(kind, str):
                added.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}
