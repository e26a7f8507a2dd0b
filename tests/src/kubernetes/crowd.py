"""What the pods of a node do that runs, and what kubelet does to them. Each line of output is `ok` or begins with
`failed`.

    crowd.py pod DNS NAME     answers probes at port 8080, and asks DNS for NAME again and again
    crowd.py node ADDRESS...  probes every pod again and again; a line for each round"""

import socket
import struct
import sys
import threading
import time

# Far more than an answer takes, so that a machine with other things to do fails nothing. A lost datagram never
# comes, however long one waits.
PATIENCE = 30


def query(server, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    request = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((server, 53))
        client.send(request)
        answer = client.recv(512)
    if struct.unpack("!H", answer[6:8])[0] == 0:
        raise OSError("an answer without an address")


def probe(address):
    with socket.create_connection((address, 8080), timeout=PATIENCE) as client:
        client.sendall(b"probe")
        if client.recv(16) != b"alive":
            raise OSError("no answer")


def serve(listener):
    while True:
        client, _ = listener.accept()
        with client:
            client.settimeout(PATIENCE)
            try:
                client.recv(16)
                client.sendall(b"alive")
            except OSError:
                pass


def again_and_again(pause, attempts):
    while True:
        failed = False
        for name, attempt in attempts:
            try:
                attempt()
            except OSError as error:
                print(f"failed: {name}: {error}", flush=True)
                failed = True
        if not failed:
            print("ok", flush=True)
        time.sleep(pause)


if sys.argv[1] == "pod":
    listener = socket.create_server(("0.0.0.0", 8080))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    server, name = sys.argv[2:]
    again_and_again(0.2, [(f"{name} at {server}", lambda: query(server, name))])
else:
    again_and_again(0.05, [(address, lambda address=address: probe(address)) for address in sys.argv[2:]])
