"""Objects that may leave memory while their WebSockets stay open.

The Hibernatable WebSockets API of Cloudflare's Durable Objects.
"""

from trio_wspair._rules.errors import DurableObjectResetError as DurableObjectResetError
from trio_wspair._rules.exports import name_public_module as _name_public_module
from trio_wspair._rules.objects import (
    DurableObjectId as DurableObjectId,
    WebSocketRequestResponsePair as WebSocketRequestResponsePair,
)

from ._namespace import (
    DurableObjectNamespace as DurableObjectNamespace,
    DurableObjectStub as DurableObjectStub,
)
from ._object import DurableObject as DurableObject
from ._state import DurableObjectState as DurableObjectState

__all__ = (
    "DurableObject",
    "DurableObjectId",
    "DurableObjectNamespace",
    "DurableObjectResetError",
    "DurableObjectState",
    "DurableObjectStub",
    "WebSocketRequestResponsePair",
)

_name_public_module(globals())
