"""MLflow's server, and worse ones, for as long as a `with` block lasts."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

# A busy machine may take minutes for what takes a quiet one seconds.
PATIENCE = 120


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Serve the store in `folder` on a port of the loopback, a free one; yield the address."""
    port = port or free_port()
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    line += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    line += ["--artifacts-destination", str(folder / "mlartifacts")]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        # The server has workers of its own: all of its session end.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"mlflow server did not start:\n{log.read_text()}")


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections and never answer, as a server that hangs does; yield its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def refusing_server(status: int | None) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Be healthy, and answer all other requests with a long page of a status; None: hang up.

    Yields the address and a list that gets the path and the credentials of each request.
    """
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Refuse."""
            asked.append((self.path, self.headers.get("Authorization")))
            if status is None and self.path != "/health":
                return
            self.send_response(200 if self.path == "/health" else status or 0)
            self.end_headers()
            self.wfile.write(b"<p>No entry</p> " * 50)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as address:
        yield address, asked


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def proxy(
    address: str, delay: float = 0.0, answers: Callable[[str], bool] = lambda path: True
) -> Iterator[tuple[str, list[str]]]:
    """Pass requests on to a server, each after `delay` seconds.

    Those that `answers` says no to are never answered. Yields the proxy's address and a list that
    gets the method and path of each request.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Pass a request of any method on."""
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(f"{self.command} {self.path}")
            time.sleep(delay if answers(self.path) else PATIENCE)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            passed = Request(address + self.path, body or None, headers, method=self.command)
            try:
                answer = urlopen(passed, timeout=PATIENCE)
            except HTTPError as error:
                answer = error
            with answer:
                content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as through:
        yield through, requests
