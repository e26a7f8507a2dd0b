"""Requests at a rate that does not wait for answers, beside downloads that are read slowly: all must succeed.

    offered.py HOST DOWNLOADS RATE GO

The downloads are opened first. Then RATE requests are due each second, on kept connections, until the file GO has
been there for a second; a request that is due while all connections are busy waits for the first that is free, and
none is left out. `under way` is said after the first second's. When all were answered, the downloads are read to
their ends. It ends with one JSON object."""

import collections
import json
import os
import selectors
import socket
import sys
import time

host, downloads, rate, go = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
CONNECTIONS = 64
# More than the buffers on the way hold, so that a download is open until it is read.
BYTES = 2 << 20
ADDRESS = (socket.getaddrinfo(host, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0], 80)

failures = []
selector = selectors.DefaultSelector()


def answer(data):
    """Head and body's beginning; `None` as long as the head is not whole."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return lines[0].split(" ")[1], headers, rest


def fail(what):
    failures.append(what)
    if len(failures) > 20:
        finish()


def finish():
    print(json.dumps({"offered": asked, "answered": answered, "downloads": whole, "reopened": reopened, "failures": failures}))
    sys.exit(0)


asked, answered, whole, reopened = 0, 0, 0, 0

# Each is open: its head was read, and its reader has stopped.
opened = []
for number in range(downloads):
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    stream.settimeout(60)
    stream.connect(ADDRESS)
    stream.sendall(f"GET /download/{BYTES} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    opened.append(stream)
reading = []
for stream in opened:
    data = b""
    while answer(data) is None:
        piece = stream.recv(4096)
        if not piece:
            fail("a download was not begun")
            break
        data += piece
    status, headers, rest = answer(data)
    if status != "200" or int(headers["content-length"]) != BYTES:
        fail(f"a download's answer is {status} {headers}")
    reading.append([stream, BYTES - len(rest)])


class Client:
    """One kept connection, made anew where the server closes it after an answer."""

    def __init__(self):
        self.stream, self.data, self.asked = None, b"", False

    def open(self):
        self.stream = socket.create_connection(ADDRESS, timeout=60)
        self.stream.setblocking(False)
        selector.register(self.stream, selectors.EVENT_READ, self)

    def close(self):
        selector.unregister(self.stream)
        self.stream.close()
        self.stream = None

    def ask(self):
        if self.stream is None:
            self.open()
        self.data, self.asked = b"", True
        self.stream.sendall(f"GET /headers HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def read(self):
        """Whether it is free again."""
        global answered, reopened
        try:
            piece = self.stream.recv(65536)
        except BlockingIOError:
            return False
        except OSError as error:
            piece = b""
            if self.asked:
                fail(f"a request: {error}")
        if not piece:
            if self.asked:
                fail("a connection ended within a request")
            self.asked = False
            self.close()
            return False
        self.data += piece
        found = answer(self.data)
        if found is None or len(found[2]) < int(found[1]["content-length"]):
            return False
        status, headers, _ = found
        if status != "200":
            fail(f"a request was answered with {status}")
        answered += 1
        self.asked = False
        if headers.get("connection") == "close":
            reopened += 1
            self.close()
        return True


clients = [Client() for _ in range(CONNECTIONS)]
free = collections.deque(clients)
total, said = None, False
began = time.monotonic()
while total is None or answered < total:
    due = int((time.monotonic() - began) * rate)
    if total is None and os.path.exists(go):
        total = due + rate
    if total is not None:
        due = min(due, total)
    while asked < due and free:
        client = free.popleft()
        client.ask()
        asked += 1
    if asked >= rate and not said:
        said = True
        print("under way", flush=True)
    # With nothing to read, until the next one is due.
    for key, _ in selector.select(0.001 if free else 1):
        if key.data.read():
            free.append(key.data)

for stream, left in reading:
    stream.setblocking(False)
    selector.register(stream, selectors.EVENT_READ, None)
left = {stream: rest for stream, rest in reading}
while left:
    ready = [key.fileobj for key, _ in selector.select(60) if key.fileobj in left]
    if not ready:
        idle = [key.data for key, _ in selector.select(0) if key.data is not None]
        if not idle:
            fail(f"{len(left)} downloads stand still")
            break
        for client in idle:
            client.read()
    for stream in ready:
        try:
            piece = stream.recv(1 << 18)
        except OSError as error:
            fail(f"a download: {error}")
            piece = b""
        if piece:
            left[stream] -= len(piece)
        if not piece or left[stream] <= 0:
            if left[stream]:
                fail(f"a download ended with {left[stream]} bytes too few")
            else:
                whole += 1
            selector.unregister(stream)
            del left[stream]
finish()
