"""A frame that says something else once it has been judged. The script stands between apostrophes, so it
has none.

unfinished.py csum eth0|tap|uplink DESTINATION START FIELD VALUE
    A datagram of the pod (eth0, tap), or of a workload on the network of the node (uplink), whose checksum
    is left to be filled in: begun at byte START of the frame, written FIELD bytes behind, and come out as
    VALUE (hexadecimal).

unfinished.py xdp eth0 DESTINATION START FIELD VALUE
    The same by an AF_XDP socket, whose metadata ask for the checksum (Linux 6.8).
unfinished.py launch eth0 DESTINATION
    A datagram of the pod by an AF_XDP socket, whose metadata say when it leaves (Linux 6.14).
unfinished.py gso eth0|tap DESTINATION
    Datagrams of the pod with every kind of header about segmentation, most of which contradict the packet
    or themselves.

Exit code: 1 refused by the kernel, 2 sent, 3 not to be had on this kernel; nobody waits for an answer.
"""
import ctypes
import errno
import fcntl
import ipaddress
import itertools
import mmap
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


def changing(place, destination, start, field, value):
    """A frame whose checksum comes out as VALUE."""
    whole = bytearray(frame(place, destination))
    # The last two bytes make the sum come out as it shall.
    forwarded = bytearray(whole)
    if place != "uplink" and whole[12:14] == bytes([0x86, 0xdd]):
        # The node takes one from the hop limit; IPv4 has a checksum that makes up for it.
        forwarded[21] -= 1
    rest = checksum(bytes(forwarded[start:]))
    total = (~value & 0xFFFF) + rest
    whole[-2:] = struct.pack("!H", (total & 0xFFFF) + (total >> 16))
    return bytes(whole)


def csum(place, destination, start, field, value):
    start, field = int(start), int(field)
    whole = changing(place, destination, start, field, int(value, 16))
    # struct virtio_net_hdr: VIRTIO_NET_HDR_F_NEEDS_CSUM.
    with_headers(place, [struct.pack("=BBHHHH", 1, 0, 0, 0, start, field) + whole])


def gso(place, destination):
    whole = frame(place, destination)
    network = 14 + (40 if whole[12:14] == bytes([0x86, 0xdd]) else 20)
    # TCPv4, UDP, TCPv6, UDP_L4 (linux/virtio_net.h), the flag for ECN, and those for tunnels.
    kinds = [1, 3, 4, 5, 0x81, 0x84, 0x85, 0x21, 0x25, 0x41, 0x45, 0x65, 0x7F]
    sizes, lengths = [0, 1, 8, 1400, 0xFFFF], [0, 14, network, network + 8, network + 20, 0xFFFF]
    # Without a checksum to be filled in, with that of UDP, and with that of TCP.
    fills = [(0, 0, 0), (1, network, 6), (1, network, 16)]
    frames = []
    for kind, size, length, (flags, start, field) in itertools.product(kinds, sizes, lengths, fills):
        frames.append(struct.pack("=BBHHHH", flags, kind, length, size, start, field) + whole)
    # What is as it should be: segments of eight bytes.
    frames.append(struct.pack("=BBHHHH", 1, 5, network + 8, 8, network, 6) + whole)
    with_headers(place, frames)


def with_headers(place, frames):
    """Sends frames behind their virtio_net_hdr. One that the kernel refuses alone is an error."""
    last, sent = None, 0

    def attempt(send, frame):
        nonlocal last, sent
        try:
            send(frame)
            sent += 1
        except OSError as error:
            last = error

    if place == "tap":
        # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; a bridge leads from there to the interface of the pod.
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", b"own0", 0x5002))
        for command in ("add own1 type bridge", "set own1 up", "set own0 master own1",
                        "set own0 up", "set eth0 master own1"):
            subprocess.run(["ip", "link", *command.split()], check=True)
        for whole in frames:
            attempt(lambda bytes: os.write(tap, bytes), whole)
        subprocess.run(["ip", "link", "del", "own1"], check=True)
    else:
        s = packet_socket()
        s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        for whole in frames:
            attempt(s.send, whole)
    print("%d of %d" % (sent, len(frames)))
    if not sent:
        raise last


# linux/if_xdp.h: XDP_TXMD_FLAGS_CHECKSUM and XDP_TXMD_FLAGS_LAUNCH_TIME; how long struct xsk_tx_metadata is.
CHECKSUM, LAUNCH, METADATA = 2, 4, 24


def xdp(place, destination, start, field, value):
    start, field = int(start), int(field)
    whole = changing(place, destination, start, field, int(value, 16))
    by_xdp(whole, struct.pack("=QHHIQ", CHECKSUM, start, field, 0, 0))


def launch(place, destination):
    by_xdp(frame(place, destination), struct.pack("=QHHIQ", LAUNCH, 0, 0, 0, 1 << 62))


def by_xdp(whole, metadata):
    """Sends a frame by an AF_XDP socket that copies, behind its metadata."""
    SOL_XDP, COPY = 283, 2
    OFFSETS, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 3, 4, 5, 6
    libc = ctypes.CDLL(None, use_errno=True)
    s = socket.socket(44, socket.SOCK_RAW, 0)
    umem = mmap.mmap(-1, 8192)
    umem[:METADATA + len(whole)] = metadata + whole
    at = ctypes.addressof(ctypes.c_char.from_buffer(umem))
    try:
        # Chunks of 4096 bytes; XDP_UMEM_TX_METADATA_LEN.
        s.setsockopt(SOL_XDP, UMEM_REG, struct.pack("=QQIIII", at, 8192, 4096, 0, 4, METADATA))
    except OSError as error:
        print("no metadata on this kernel: %s" % error.strerror)
        sys.exit(3)
    for ring in (FILL_RING, COMPLETION_RING, TX_RING):
        s.setsockopt(SOL_XDP, ring, struct.pack("=I", 2))
    address = struct.pack("=HHIII", 44, COPY, socket.if_nametoindex("eth0"), 0, 0)
    if libc.bind(s.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # struct xdp_mmap_offsets: four words for each of the rings, of which the second is the one to send.
    offsets = struct.unpack("=16Q", s.getsockopt(SOL_XDP, OFFSETS, 128))
    producer, descriptor = offsets[4], offsets[6]
    ring = mmap.mmap(s.fileno(), descriptor + 32, offset=0x80000000)
    # XDP_TX_METADATA.
    ring[descriptor:descriptor + 16] = struct.pack("=QII", METADATA, len(whole), 2)
    ring[producer:producer + 4] = struct.pack("=I", 1)
    if libc.sendto(s.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0) < 0:
        number = ctypes.get_errno()
        if number not in (errno.EBUSY, errno.EAGAIN):
            raise OSError(number, os.strerror(number))


try:
    {"csum": csum, "gso": gso, "xdp": xdp, "launch": launch}[sys.argv[1]](*sys.argv[2:])
    print("sent")
    sys.exit(2)
except OSError as error:
    print("refused: %s (%s)" % (errno.errorcode.get(error.errno, error.errno), error.strerror))
    sys.exit(1)
