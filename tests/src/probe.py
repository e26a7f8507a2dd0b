#!/usr/bin/python3
"""One attempt to reach the outside, in one of many ways: probe.py WAY ADDRESS [PORT].

Says what happened. Exit code: 0 answered, 1 refused by the kernel, 2 sent but no answer.
"""
import errno
import fcntl
import socket
import struct
import sys

WAIT = 1.0
DATA = b"the pod's secret"
UDPLITE, MPTCP, ETH_P_ALL = 136, 262, 3


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(address, port, protocol=0):
    s = socket.socket(family(address), socket.SOCK_STREAM, protocol)
    s.settimeout(WAIT)
    s.connect((address, port))
    s.sendall(DATA)
    return s.recv(100)


def mapped(address, port):
    return tcp("::ffff:" + address, port)


def mptcp(address, port):
    return tcp(address, port, MPTCP)


def fastopen(address, port):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    s.settimeout(WAIT)
    s.sendto(DATA, socket.MSG_FASTOPEN, (address, port))
    return s.recv(100)


def udp(address, port, protocol=0):
    s = socket.socket(family(address), socket.SOCK_DGRAM, protocol)
    s.settimeout(WAIT)
    s.sendto(DATA, (address, port))
    return s.recv(100)


def udp_connected(address, port):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.settimeout(WAIT)
    s.connect((address, port))
    s.send(DATA)
    return s.recv(100)


def udp_mapped(address, port):
    return udp("::ffff:" + address, port)


def udplite(address, port):
    return udp(address, port, UDPLITE)


def echo_request(v6):
    head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 1, 1)
    return head[:2] + struct.pack("!H", 0 if v6 else checksum(head + DATA)) + head[4:] + DATA


def ping_socket(address, _):
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    s = socket.socket(family(address), socket.SOCK_DGRAM, protocol)
    s.settimeout(WAIT)
    s.sendto(echo_request(v6), (address, 0))
    return s.recv(100)


def raw_icmp(address, _):
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    s = socket.socket(family(address), socket.SOCK_RAW, protocol)
    s.settimeout(WAIT)
    s.sendto(echo_request(v6), (address, 0))
    while True:
        data, peer = s.recvfrom(1000)
        if peer[0] == address:
            return data


def ipv4_udp(source, address, port, options=b""):
    """A UDP datagram with its IPv4 header."""
    payload = struct.pack("!HHHH", 40000, port, 8 + len(DATA), 0) + DATA
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(address)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def own_address(address):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.connect(("10.96.0.10", 53))
    return s.getsockname()[0]


def wait_for_udp(port=40000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", port))
    s.settimeout(WAIT)
    return s


def raw_ip(address, port, options=b""):
    answer = wait_for_udp()
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(ipv4_udp(own_address(address), address, port, options), (address, 0))
    return answer.recv(100)


def raw_options(address, port):
    # Loose source routing (RFC 791), one hop, padded.
    return raw_ip(address, port, b"\x83\x07\x04" + socket.inet_aton(address) + b"\0")


def raw_spoofed(address, port):
    """With the node's own source address; there can't be an answer here."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(ipv4_udp("10.10.0.11", address, port), (address, 0))
    raise socket.timeout


def ipip(address, _):
    """A packet in a packet (RFC 2003)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
    s.settimeout(WAIT)
    s.sendto(ipv4_udp(own_address(address), address, 53), (address, 0))
    return s.recv(100)


def packet_socket(address, port, interface="eth0", router="02:00:0a:f4:01:01"):
    """A frame made by hand, past every socket hook."""
    answer = wait_for_udp()
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((interface, 0))
    own = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24]
    frame = bytes.fromhex(router.replace(":", "")) + own + b"\x08\x00"
    s.send(frame + ipv4_udp(own_address(address), address, port))
    return answer.recv(100)


def packet_uplink(address, port):
    """The same from a node, to the outside's router."""
    return packet_socket(address, port, router="02:00:0a:0a:00:fe")


def vlan(address, port, interface="eth0", router="02:00:0a:f4:01:01"):
    """The same with a VLAN tag."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((interface, 0))
    own = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24]
    frame = bytes.fromhex(router.replace(":", "")) + own + b"\x81\x00\x00\x05\x08\x00"
    s.send(frame + ipv4_udp(own_address(address), address, port))
    raise socket.timeout


WAYS = {
    "tcp": tcp, "tcp-mapped": mapped, "mptcp": mptcp, "fastopen": fastopen,
    "udp": udp, "udp-connected": udp_connected, "udp-mapped": udp_mapped, "udplite": udplite,
    "ping-socket": ping_socket, "raw-icmp": raw_icmp, "raw-ip": raw_ip, "raw-options": raw_options,
    "raw-spoofed": raw_spoofed, "ipip": ipip, "packet": packet_socket,
    "packet-uplink": packet_uplink, "vlan": vlan,
}


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in WAYS:
        print(__doc__, "WAY is one of:", ", ".join(WAYS), file=sys.stderr)
        return 3
    way, address = sys.argv[1], sys.argv[2]
    port = int(sys.argv[3]) if len(sys.argv) == 4 else 0
    try:
        answer = WAYS[way](address, port)
        print("answered, %d bytes" % len(answer))
        return 0
    except socket.timeout:
        print("sent, no answer in %g s" % WAIT)
        return 2
    except OSError as error:
        print("refused: %s (%s)" % (errno.errorcode.get(error.errno, error.errno), error.strerror))
        return 1


sys.exit(main())
