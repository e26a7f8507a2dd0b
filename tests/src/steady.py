"""What a well-behaved workload does: requests one after the other, each on a connection of its own, and
now and then something that is refused. It writes one JSON object with what it saw; `ports` are the local ports
of its connections.

    steady.py HOST PORT NAME REQUESTS PREFIX REFUSED_HOST REFUSED_PORTS

Every request asks for `/PREFIX/NUMBER`, so that its line can be found in the gateway's log. A datagram to each
of REFUSED_PORTS (`FIRST-LAST`) is refused, so that its flow event can be found in the node's."""

import json
import socket
import sys
import time


def request(host, port, name, path):
    started = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=20) as client:
            client.settimeout(20)
            ports.append(client.getsockname()[1])
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while True:
                piece = client.recv(65536)
                if not piece:
                    break
                answer += piece
        status = answer.split(b" ", 2)[1].decode()
    except (OSError, IndexError) as error:
        status = type(error).__name__
    return status, 1000 * (time.monotonic() - started)


def refused(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"x", (host, port))
            return "sent"
        except PermissionError:
            return "refused"


host, port, name, count, prefix, other, ports = sys.argv[1:]
count = int(count)
first, last = map(int, ports.split("-"))
every = max(1, count // (last - first + 1))
statuses, times, refusals, ports = {}, [], {}, []
other_port = first
for number in range(count):
    status, milliseconds = request(host, int(port), name, f"/{prefix}/{number}")
    statuses[status] = statuses.get(status, 0) + 1
    times.append(milliseconds)
    if number % every == 0 and other_port <= last:
        seen = refused(other, other_port)
        refusals[seen] = refusals.get(seen, 0) + 1
        other_port += 1
    # Its own rate stays below what a workload may have of flow events.
    time.sleep(0.005)
times.sort()
p99 = times[min(count - 1, count * 99 // 100)]
seen = {"statuses": statuses, "refusals": refusals, "p50": times[count // 2], "p99": p99, "most": times[-1]}
print(json.dumps(seen | {"ports": ports}))
