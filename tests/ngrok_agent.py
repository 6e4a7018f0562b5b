#!/usr/bin/env python3
"""A stand-in for ngrok's agent that really forwards, on loopback.

It has the agent's command line and local API as far as pyngrok uses them. How it behaves is read from
``control.json`` in the folder ``FAKE_NGROK``, anew each time that it matters, and what it was asked is
written to ``calls.jsonl`` there:

* ``start_error``: the code with which it ends when it starts, for ngrok refuses it;
* ``open_error``: the code with which it refuses to open an endpoint;
* ``mute``: the first time it ends at once, without a word;
* ``silent``: it starts and never says anything; ``offline``: it says that it cannot connect;
* ``web_port``: the port of its local API; ``old``: it knows tunnels and no endpoints.
"""

import http.server
import json
import os
import pathlib
import sys
import threading
import time

from forwarding import Forwarder

FOLDER = pathlib.Path(os.environ["FAKE_NGROK"])


def control(name):
    path = FOLDER / "control.json"
    return json.loads(path.read_text()).get(name) if path.exists() else None


def note(**call):
    with (FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps(call) + "\n")


def log(level, message, **fields):
    quoted = [f"{name}={json.dumps(str(value))}" for name, value in fields.items()]
    now = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())
    print(f"t={now} lvl={level} msg={json.dumps(message)}", *quoted, flush=True)


class Api(http.server.BaseHTTPRequestHandler):
    """``/api/endpoints`` and ``/api/tunnels``."""

    protocol_version = "HTTP/1.1"
    open_ones: dict = {}  # noqa: RUF012

    def handle_any(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        note(method=self.command, path=self.path, body=body)
        _, _, kind, *name = self.path.split("/")
        if kind not in ("endpoints", "tunnels") or (kind == "endpoints" and control("old")):
            self.answer(404, {"status_code": 404, "msg": "not found"})
        elif self.command == "POST":
            self.open(body)
        elif self.command == "DELETE":
            self.open_ones.pop(name[0]).end()
            self.answer(204, None)
        elif name:
            self.answer(200, self.describe(kind, name[0]))
        else:
            self.answer(200, {kind: [self.describe(kind, each) for each in self.open_ones]})

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

    def open(self, body):
        if code := control("open_error"):
            text = f"failed to start tunnel: it is refused.\r\n\r\nERR_NGROK_{code}\r\n"
            self.answer(502, {"error_code": 103, "status_code": 502, "details": {"err": text}})
            return
        forwarder = Forwarder(body["upstream"]["url"])
        forwarder.start()
        self.open_ones[body["name"]] = forwarder
        self.answer(201, self.describe("endpoints", body["name"]))

    def describe(self, kind, name):
        forwarder = self.open_ones[name]
        target = forwarder.upstream.geturl()
        where = {"name": name, "uri": f"/api/{kind}/{name}", "metrics": {}}
        if kind == "endpoints":
            return {**where, "url": forwarder.url, "upstream": {"url": target}}
        return {**where, "public_url": forwarder.url, "proto": "http", "config": {"addr": target}}

    def answer(self, status, content):
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args): ...


def start():
    token = os.environ.get("NGROK_AUTHTOKEN")
    if control("mute") and not (was_mute := FOLDER / "mute").exists():
        was_mute.touch()
        return 1
    while control("silent"):
        time.sleep(0.1)
    api = http.server.ThreadingHTTPServer(("127.0.0.1", control("web_port") or 0), Api)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    log("info", "starting web service", obj="web", addr=f"127.0.0.1:{api.server_port}")
    while control("offline"):
        log("warn", "failed to reconnect session", err="no route to host")
        time.sleep(0.5)
    if code := control("start_error") or (None if token else 4018):
        text = f"authentication failed: Your authtoken: {token}\r\n\r\nERR_NGROK_{code}\r\n"
        log("eror", "terminating with error", obj="app", err=text)
        return 1
    log("info", "client session established", obj="tunnels.session")
    log("info", "tunnel session started", obj="tunnels.session")
    threading.Event().wait()
    return 0


def main(arguments):
    note(arguments=arguments, pid=os.getpid())
    if arguments[:1] == ["start"]:
        return start()
    print("ngrok version 3.30.0")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
