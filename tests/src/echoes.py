"""Sends to echo servers without a break, one message after the other's answer, until SIGTERM.

    echoes.py PROTOCOL:ADDRESS:PORT...

Each TCP server has one connection, which stays. It writes a line with the server's name for every 100 answers, and
at its end one JSON object by server: messages sent, those without an answer, segments that the kernel sent again,
and the longest time until an answer in milliseconds."""

import json
import signal
import socket
import struct
import sys
import threading
import time

# Far more than an answer takes, so that a machine with other things to do loses nothing.
PATIENCE = 5
# Where struct tcp_info (include/uapi/linux/tcp.h) has tcpi_total_retrans.
TOTAL_RETRANS = 100

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())


def exchange(number, connection):
    """Whether the answer came."""
    message = b"%020d" % number
    connection.send(message)
    while True:
        answer = connection.recv(len(message))
        # One that comes too late belongs to an earlier message.
        if answer == message or not answer:
            return bool(answer)


def dial(server):
    protocol, rest = server.split(":", 1)
    address, port = rest.rsplit(":", 1)
    if protocol == "tcp":
        connection = socket.create_connection((address, int(port)), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_DGRAM)
        connection.connect((address, int(port)))
    connection.settimeout(PATIENCE)
    return protocol, connection


def run(server, seen):
    protocol, connection = dial(server)
    sent, lost, longest = 0, 0, 0.0
    while not ended.is_set():
        started = time.monotonic()
        try:
            answered = exchange(sent, connection)
        except OSError:
            answered = False
        sent += 1
        longest = max(longest, time.monotonic() - started)
        if not answered:
            lost += 1
            if protocol == "tcp":
                break
        elif sent % 100 == 0:
            print(server, flush=True)
        time.sleep(0.001)
    again = 0
    if protocol == "tcp":
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        again = struct.unpack_from("I", info, TOTAL_RETRANS)[0]
    seen[server] = {"sent": sent, "lost": lost, "sent_again": again, "longest_ms": round(1000 * longest, 1)}


seen = {}
threads = [threading.Thread(target=run, args=(server, seen)) for server in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen), flush=True)
