"""One packet, made by hand: frame.py INTERFACE ROUTER KIND SOURCE ADDRESS [PORT [HARDWARE]].

Sent on INTERFACE to the hardware address ROUTER, or, where INTERFACE is `raw` or `raw:NAME`, by a raw socket. KIND
is udp, echo (an ICMP echo request), dhcp (from a client's port to a server's) or ask (a neighbour solicitation
for ADDRESS, to be answered at the hardware address ROUTER); HARDWARE is the frame's source, in place of the
interface's own. Exit code: 1 refused by the kernel, 2 sent; nobody waits for an answer.
"""
import errno
import fcntl
import socket
import struct
import sys

DATA = b"the pod's secret"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, source, address, payload):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(address))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source, address, port, data, source_port=40000):
    head = struct.pack("!HHHH", source_port, port, 8 + len(data), 0)
    return ipv4(17, source, address, head + data)


def echo(source, address):
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + DATA
    return ipv4(1, source, address, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def ask(source, address, router):
    wanted = socket.inet_pton(socket.AF_INET6, address)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + wanted[13:]
    source = socket.inet_pton(socket.AF_INET6, source)
    body = struct.pack("!BBHI", 135, 0, 0, 0) + wanted + b"\1\1" + hardware_address(router)
    total = checksum(source + group + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return group, struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group + body


def send_question(interface, router, source, address):
    group, packet = ask(source, address, router)
    if not interface.startswith("raw"):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
        s.bind((interface, 0))
        own = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24]
        s.send(b"\x33\x33" + group[12:] + own + b"\x86\xdd" + packet)
        return
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
    index = socket.if_nametoindex(interface.partition(":")[2])
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    s.sendto(packet, (socket.inet_ntop(socket.AF_INET6, group), 0, 0, index))


def hardware_address(text):
    return bytes.fromhex(text.replace(":", ""))


def main(interface, router, kind, source, address, port="0", hardware=""):
    if kind == "ask":
        return send_question(interface, router, source, address)
    packet = {
        "udp": lambda: udp(source, address, int(port), DATA, int(port)),
        "echo": lambda: echo(source, address),
        "dhcp": lambda: udp(source, address, 67, DATA, 68),
    }[kind]()
    if interface == "raw":
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        s.sendto(packet, (address, 0))
    else:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        s.bind((interface, 0))
        own = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24]
        own = hardware_address(hardware) or own
        s.send(hardware_address(router) + own + b"\x08\x00" + packet)


try:
    main(*sys.argv[1:])
    print("sent")
    sys.exit(2)
except OSError as error:
    print("refused: %s (%s)" % (errno.errorcode.get(error.errno, error.errno), error.strerror))
    sys.exit(1)
