"""Clients of a gateway that is replaced meanwhile: each request and each download must succeed.

    upgrade.py GO DOWNLOADS NAME...

For each NAME, which is `http://…` or `https://…`: connections with one request each, connections with many,
connections that lie idle after their first request, and DOWNLOADS downloads that stop reading in their midst.
It says `open` once all of that is under way. Once the file GO exists the idle connections ask again, the
downloads read on, and the others ask some more. It ends with one JSON object of what was served and what
failed."""

import collections
import json
import os
import socket
import ssl
import sys
import threading
import time
import traceback

go, downloads, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
# Requests of each client before it says that it is under way, and after GO.
BEFORE, AFTER = 5, 40
TRUST = ssl.create_default_context()

served = collections.Counter()
failures = []
lock = threading.Lock()
under_way = threading.Semaphore(0)
gone = threading.Event()


class Client:
    def __init__(self, name):
        self.scheme, _, self.host = name.partition("://")
        self.stream, self.read = None, b""

    def open(self):
        port = 443 if self.scheme == "https" else 80
        stream = socket.create_connection((self.host, port), timeout=20)
        self.stream = TRUST.wrap_socket(stream, server_hostname=self.host) if port == 443 else stream
        self.read = b""

    def more(self):
        piece = self.stream.recv(65536)
        if not piece:
            raise EOFError("the connection ended within an answer")
        self.read += piece

    def ask(self, path, close=False):
        """The answer's length; whether the server keeps the connection."""
        if self.stream is None:
            self.open()
        ask = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        self.stream.sendall((ask + ("Connection: close\r\n" if close else "") + "\r\n").encode())
        while b"\r\n\r\n" not in self.read:
            self.more()
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        status = lines[0].split(" ")[1]
        if status not in ("200", "301"):
            raise ValueError(f"status {status}")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(headers["content-length"]), headers.get("connection") != "close"

    def body(self, length):
        while len(self.read) < length:
            self.more()
        self.read = self.read[length:]

    def request(self, close=False):
        length, kept = self.ask("/headers", close)
        self.body(length)
        if close or not kept:
            self.close()
        return kept

    def close(self):
        self.stream.close()
        self.stream = None


def requests(client, close):
    number, after = 0, 0
    while after < AFTER:
        client.request(close)
        number += 1
        if number == BEFORE:
            under_way.release()
        after += gone.is_set()
        time.sleep(0.002)
        yield


def one_each(name):
    yield from requests(Client(name), True)


def many(name):
    yield from requests(Client(name), False)


def idle(name):
    client = Client(name)
    client.request()
    yield
    under_way.release()
    gone.wait()
    client.request()
    yield


def download(name):
    client = Client(name)
    length, _ = client.ask("/download")
    while len(client.read) < 1 << 16:
        client.more()
    under_way.release()
    gone.wait()
    left = length - len(client.read)
    while left > 0:
        piece = client.stream.recv(min(left, 1 << 20))
        if not piece:
            raise EOFError(f"a download ended {left} bytes too early")
        left -= len(piece)
    yield


def run(kind, name):
    try:
        for _ in kind(name):
            with lock:
                served[f"{kind.__name__} {name}"] += 1
    except Exception as error:
        with lock:
            failures.append(f"{kind.__name__} {name}: {error!r}: {traceback.format_exc(limit=-1)}")
        under_way.release()


clients = [one_each] * 3 + [many] * 2 + [idle] * 3 + [download] * downloads
threads = [threading.Thread(target=run, args=(kind, name)) for name in names for kind in clients]
for thread in threads:
    thread.start()
for _ in threads:
    under_way.acquire()
print("open", flush=True)
while not os.path.exists(go):
    time.sleep(0.01)
gone.set()
for thread in threads:
    thread.join()
print(json.dumps({"served": served, "failures": failures}), flush=True)
