"""A frame that says something else once it has been judged. The script stands between apostrophes, so it
has none.

unfinished.py csum eth0|tap|uplink DESTINATION START FIELD VALUE
    A datagram of the pod (eth0, tap), or of a workload on the network of the node (uplink), whose checksum
    is left to be filled in: begun at byte START of the frame, written FIELD bytes behind, and come out as
    VALUE (hexadecimal).

Exit code: 1 refused by the kernel, 2 sent; nobody waits for an answer.
"""
import errno
import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
import sys

SOL_PACKET, PACKET_VNET_HDR = 263, 15
POD = {4: "10.244.1.10", 6: "fd00:10:244:1::10"}
NODE = {4: "10.10.0.1", 6: "fd00:10:10::1"}
# The hardware addresses of the router and of the sender.
POD_LINK = bytes.fromhex("02000af40101" "02000af4010a")
NODE_LINK = bytes.fromhex("02000a0a00fe" "02000a0a0001")
DATA = b"the pod\x27s secret"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(place, destination, port=7007):
    to = ipaddress.ip_address(destination)
    link, own = (NODE_LINK, NODE) if place == "uplink" else (POD_LINK, POD)
    source = ipaddress.ip_address(own[to.version])
    udp = struct.pack("!HHHH", 40000, port, 8 + len(DATA) + 2, 0) + DATA + b"\0\0"
    if to.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + source.packed + to.packed
        return link + b"\x86\xdd" + head + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += source.packed + to.packed
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return link + b"\x08\x00" + head + udp


def packet_socket():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind(("eth0", 0))
    return s


def csum(place, destination, start, field, value):
    start, field, value = int(start), int(field), int(value, 16)
    whole = bytearray(frame(place, destination))
    # The last two bytes make the sum come out as it shall.
    forwarded = bytearray(whole)
    if place != "uplink" and whole[12:14] == bytes([0x86, 0xdd]):
        # The node takes one from the hop limit; IPv4 has a checksum that makes up for it.
        forwarded[21] -= 1
    rest = checksum(bytes(forwarded[start:]))
    total = (~value & 0xFFFF) + rest
    whole[-2:] = struct.pack("!H", (total & 0xFFFF) + (total >> 16))
    # struct virtio_net_hdr: VIRTIO_NET_HDR_F_NEEDS_CSUM.
    head = struct.pack("=BBHHHH", 1, 0, 0, 0, start, field)
    if place == "tap":
        # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; a bridge leads from there to the interface of the pod.
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", b"own0", 0x5002))
        for command in ("add own1 type bridge", "set own1 up", "set own0 master own1",
                        "set own0 up", "set eth0 master own1"):
            subprocess.run(["ip", "link", *command.split()], check=True)
        os.write(tap, head + whole)
        subprocess.run(["ip", "link", "del", "own1"], check=True)
    else:
        s = packet_socket()
        s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        s.send(head + whole)


try:
    {"csum": csum}[sys.argv[1]](*sys.argv[2:])
    print("sent")
    sys.exit(2)
except OSError as error:
    print("refused: %s (%s)" % (errno.errorcode.get(error.errno, error.errno), error.strerror))
    sys.exit(1)
