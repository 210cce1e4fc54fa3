"""The server of the explorer."""

import logging
import socket
from typing import TYPE_CHECKING

from chartae.app.explorer import Explorer
from chartae.checks import check_integer
from chartae.errors import ConfigurationError

if TYPE_CHECKING:
    from dash import Dash

__all__ = ["LOOPBACK", "build_app", "open_socket", "serve"]

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORTS = 20
"""Number of ports that are tried, the given one included."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket at a port, or at one of the next ports if it is in use.

    Raises:
        ConfigurationError: for a number that is not a port, or if no port is free.
    """
    check_integer("port", port, minimum=0, maximum=65535)
    for candidate in range(port, min(port + PORTS, 65536)):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found = socket.create_server((host, candidate), family=family)
        except OSError as error:
            reason = error
            continue
        if candidate != port:
            logger.warning("port %d is in use: port %d is used instead", port, candidate)
        return found
    raise ConfigurationError(
        f"host={host!r}, port={port}: expected a free port from there on ({reason.strerror})"
    )


def serve(app: "Dash", listening: socket.socket) -> None:
    """Answer requests at a listening socket, until the process is interrupted."""
    from werkzeug.serving import make_server

    host, port = listening.getsockname()[:2]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = make_server(host, port, app.server, threaded=True, fd=listening.fileno())
    with listening:
        server.serve_forever()


def build_app(explorer: Explorer, *, host: str = LOOPBACK[0]) -> "Dash":
    """Return the page as an application of Dash.

    It reads no files on request. At a loopback address it answers only requests that name such an
    address, so that no page of the web can reach it by a name of its own.

    Raises:
        ConfigurationError: without Dash.
    """
    try:
        from dash import Dash
    except ImportError as error:
        raise ConfigurationError(
            "the explorer needs dash: pip install chartae[app]; --html FILE works without it"
        ) from error
    from chartae.app.callbacks import register
    from chartae.app.layout import layout

    app = Dash(
        __name__,
        title=f"chartae: {explorer.title}",
        update_title="",
        serve_locally=True,
        suppress_callback_exceptions=True,
    )
    app.layout = layout(explorer)
    register(app, explorer)
    if host in LOOPBACK:
        _only_loopback(app)
    return app


def _only_loopback(app: "Dash") -> None:
    from flask import abort, request

    def check() -> None:
        name = request.host.rsplit(":", 1)[0].strip("[]")
        if name not in LOOPBACK:
            abort(403)

    app.server.before_request(check)
