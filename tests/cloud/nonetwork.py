"""The API of a network service that has no networks: WSGI, nothing but Python.

Nova asks for a server's ports even when the server has none. What is asked
for is not there; nothing can be made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

#: What may be listed: each as an empty list.
_COLLECTIONS = frozenset((
    "agents", "availability_zones", "extensions", "floatingips", "networks", "ports", "routers",
    "security-group-rules", "security-groups", "subnets", "subnetpools", "trunks"))
_VERSION = {"id": "v2.0", "status": "CURRENT"}

Start = Callable[[str, list[tuple[str, str]]], object]


def application(request: dict[str, Any], start: Start) -> Iterable[bytes]:
    status, told = answer(request["REQUEST_METHOD"], request["PATH_INFO"])
    body = json.dumps(told).encode()
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def answer(method: str, path: str) -> tuple[str, dict[str, object]]:
    words = [word for word in path.removesuffix(".json").split("/") if word]
    if method != "GET":
        return _error("501 Not Implemented", "HTTPNotImplemented", "There is no networking here.")
    if not words:
        return "200 OK", {"versions": [_VERSION]}
    if words == ["v2.0"]:
        return "200 OK", {"resources": []}
    if len(words) == 2 and words[0] == "v2.0" and words[1] in _COLLECTIONS:
        return "200 OK", {words[1].replace("-", "_"): []}
    if len(words) == 3 and words[:2] == ["v2.0", "quotas"]:
        return "200 OK", {"quota": {"network": -1, "port": -1, "security_group": -1}}
    return _error("404 Not Found", "HTTPNotFound", "The resource could not be found.")


def _error(status: str, kind: str, message: str) -> tuple[str, dict[str, object]]:
    return status, {"NeutronError": {"type": kind, "message": message, "detail": ""}}
