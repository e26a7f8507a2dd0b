"""A process in a cgroup: does what each line of its input asks for (`CALL ADDRESS PORT`), and
answers `ok ADDRESS PORT`, the peer's, or `error ERRNO`."""
import socket
import sys


def perform(call, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if call == "connect" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        if call == "udp-send":
            s.sendto(b"x", (address, port))
            return address, port
        s.connect((address, port))
        return s.getpeername()[:2]


for line in sys.stdin:
    call, address, port = line.split()
    try:
        print("ok %s %d" % perform(call, address, int(port)), flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
