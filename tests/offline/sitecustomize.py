"""Stops every connection that would leave this machine, in any Python process that finds this folder on PYTHONPATH.

Python imports a module of this name by itself when it starts, so the block also holds in notebook kernels and in
subprocesses. It acts when the environment variable NLCORE_OFFLINE is 1. Each attempt raises OfflineError and, when
NLCORE_OFFLINE_LOG names a file, leaves a line there, so that an attempt whose error was swallowed is still found.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import traceback
from typing import Any

WATCHED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}
attempts: list[str] = []


class OfflineError(OSError):
    """Something tried to reach the network although everything is to work without one."""


def block() -> None:
    """Refuse, from now on and until this process ends, whatever would leave this machine."""
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event not in WATCHED:
        return
    host = _host(event, args)
    if host is not None and not _stays_here(host):
        _record(f"{event} to {host!r}")
        raise OfflineError(f"{event} to {host!r} was refused: only this machine itself may be reached here")


def _host(event: str, args: tuple[Any, ...]) -> str | None:
    """Return the host that an audited call names, or None when it names none (a Unix socket, a connected one)."""
    address = args[0] if event.startswith("socket.gethost") or event == "socket.getaddrinfo" else args[1]
    if isinstance(address, tuple):
        address = address[0] if address else None
    elif event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        return None
    return address.decode() if isinstance(address, bytes) else address


def _stays_here(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host == os.uname().nodename if hasattr(os, "uname") else False
    return address.is_loopback or address.is_unspecified


def _record(what: str) -> None:
    attempts.append(what)
    log = os.environ.get("NLCORE_OFFLINE_LOG")
    if log:
        caller = traceback.extract_stack(limit=12)[:-3]
        trail = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(caller))
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{what} by {' '.join(sys.argv)!r} at {trail}\n")


if os.environ.get("NLCORE_OFFLINE") == "1" and __name__ == "sitecustomize":
    block()
