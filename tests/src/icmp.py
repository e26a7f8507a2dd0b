"""An ICMP error that says a path is narrow: icmp.py TO SOURCE DESTINATION MTU.

Sent to TO, about an echo reply (IPv4) or request (IPv6) of SOURCE's to DESTINATION: what Linux believes
without a socket that sent it. Exit code: 1 refused by the kernel, 2 sent;
nobody waits for an answer.
"""
import errno
import ipaddress
import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main(to, source, destination, mtu):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    ends = source.packed + destination.packed
    if source.version == 4:
        echo = struct.pack("!BBHHH", 0, 0, 0, 1, 1)
        quoted = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 1, 0) + ends + echo
        error = struct.pack("!BBHHH", 3, 4, 0, 0, int(mtu)) + quoted
        error = error[:2] + struct.pack("!H", checksum(error)) + error[4:]
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    else:
        echo = struct.pack("!BBHHH", 128, 0, 0, 1, 1)
        quoted = struct.pack("!IHBB", 6 << 28, len(echo), 58, 64) + ends + echo
        # The kernel fills the checksum in.
        error = struct.pack("!BBHI", 2, 0, 0, int(mtu)) + quoted
        s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    s.sendto(error, (to, 0))


try:
    main(*sys.argv[1:])
    print("sent")
    sys.exit(2)
except OSError as error:
    print("refused: %s (%s)" % (errno.errorcode.get(error.errno, error.errno), error.strerror))
    sys.exit(1)
