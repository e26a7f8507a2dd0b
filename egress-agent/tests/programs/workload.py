"""A process in a cgroup: does what each line of its input asks for (`CALL ADDRESS PORT ...`), and
answers `ok ADDRESS PORT`, the peer's, or `error ERRNO`.

`connect-from` takes the source port, too; `connect-loopback` binds to an address of loopback, from which nothing
leaves the machine. `claim` does the same in a network of its own, where it has
put a listener of its own in the place of the node's, whose port comes last."""
import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def connect(address, port, source=0, own=""):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        if source or own:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((own, source))
        s.connect((address, port))
        return s.getpeername()[:2]


def claim(address, port, source, listener):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with socket.create_server(("127.0.0.1", listener)):
        return connect(address, port, source)


def in_a_child(call, *arguments):
    """The network is of the process that makes it, which ends with its call."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, answer(call, *arguments).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as output:
        said = output.read()
    os.wait()
    return said


def answer(call, address, port, *more):
    try:
        port, more = int(port), [int(number) for number in more]
        if call in ("connect", "connect-from"):
            return "ok %s %d" % connect(address, port, *more)
        if call == "connect-loopback":
            return "ok %s %d" % connect(address, port, own="127.0.0.1")
        if call == "claim":
            return "ok %s %d" % claim(address, port, *more)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            if call == "udp-send":
                s.sendto(b"x", (address, port))
                return "ok %s %d" % (address, port)
            s.connect((address, port))
            return "ok %s %d" % s.getpeername()[:2]
    except OSError as error:
        return "error %d" % error.errno


for line in sys.stdin:
    call, *arguments = line.split()
    perform = in_a_child if call == "claim" else lambda *all: answer(*all)
    print(perform(call, *arguments), flush=True)
