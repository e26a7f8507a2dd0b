"""ADDRESS PORT EACH TIMES LEAST MOST FILLING SMALL LARGE: clients of one origin that stall, trickle and work."""

import asyncio, json, sys, time
from statistics import median_high as median

address = sys.argv[1]
port, each, times, least, most, filling, small, large = map(int, sys.argv[2:])


async def ask(path):
    reader, writer = await asyncio.open_connection(address, port, limit=1 << 14)
    send(writer, path)
    return reader, writer


def send(writer, path):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: www.example.com:{port}\r\n\r\n".encode())


async def read(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200 "), head
    lengths = [line.split()[1] for line in head.splitlines() if line.startswith("content-length:")]
    left = length = int(lengths[0])
    while left:
        data = await reader.read(min(left, 1 << 16))
        assert data, f"{left} of {length} bytes are missing"
        left -= len(data)
    return length


async def work():
    reader, writer = await asyncio.open_connection(address, port)
    took = []
    for _ in range(times):
        start = time.monotonic()
        send(writer, "/small")
        assert await read(reader) == small
        took.append(time.monotonic() - start)
    writer.close()
    return took


async def worked():
    took = sorted(sum(await asyncio.gather(*(work() for _ in range(each))), []))
    return took[len(took) * 99 // 100]


async def trickle(reader):
    while await reader.read(512):
        await asyncio.sleep(0.01)


def holds_up_nobody(alone, beside):
    return len(beside) >= least and median(beside) <= 2 * median(alone)


async def main():
    alone, beside = [], []
    while not holds_up_nobody(alone, beside) and len(beside) < most:
        alone.append(await worked())
        stalled = [await ask("/large") for _ in range(each)]
        kept = [await ask("/large") for _ in range(each)]
        trickling = [asyncio.create_task(trickle(reader)) for reader, _ in kept]
        # At first buffers fill, which keeps the machine busy.
        for _ in range(filling):
            await worked()
        beside.append(await worked())
        assert not any(task.done() for task in trickling), "none was ended"
        # One that reads again gets all of it.
        assert await read(stalled[0][0]) == large
        for task in trickling:
            task.cancel()
        for _, writer in stalled + kept:
            writer.transport.abort()
    print(json.dumps({"alone": alone, "beside": beside}))


asyncio.run(main())
