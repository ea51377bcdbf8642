"""multiprocessing in all its start methods, shared memory, asyncio's children, threads, numpy."""
import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.shared_memory
import os
import signal
import subprocess
import sys
import tempfile
import threading

import numpy


def square(n):
    return n * n


def add(counter, lock):
    for _ in range(200):
        with lock:
            counter.value += 1


def fill(name):
    memory = multiprocessing.shared_memory.SharedMemory(name)
    memory.buf[:4] = b"done"
    memory.close()


def methods():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            assert pool.map(square, range(100)) == [n * n for n in range(100)]
        counter, lock = context.Value("i", 0, lock=False), context.Lock()
        children = [context.Process(target=add, args=(counter, lock)) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert counter.value == 800, counter.value
        queue = context.Queue()
        for n in range(1000):
            queue.put("x" * n)
        assert sum(len(queue.get()) for _ in range(1000)) == 499500
        memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
        child = context.Process(target=fill, args=(memory.name,))
        child.start()
        child.join()
        assert bytes(memory.buf[:4]) == b"done"
        memory.close()
        memory.unlink()


async def children():
    async def one(n):
        child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        out, _ = await child.communicate(b"%d" % n * 10000)
        assert len(out) == 10000 * len(str(n)) and child.returncode == 0

    await asyncio.gather(*(one(n) for n in range(20)))
    child = await asyncio.create_subprocess_exec("sleep", "100")
    child.send_signal(signal.SIGTERM)
    assert await child.wait() == -signal.SIGTERM

    async def echo(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def ask(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%d" % n)
        assert await reader.read() == b"%d" % n
        writer.close()

    await asyncio.gather(*(ask(n) for n in range(100)))


def threads():
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(lambda n: len(subprocess.check_output(["echo", str(n)])), range(40))) == 110
    done = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: done.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert done.wait(5)


def arrays():
    generator = numpy.random.default_rng(1)
    a = generator.random((500, 500))
    assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(500), atol=1e-6)
    with tempfile.NamedTemporaryFile() as file:
        mapped = numpy.memmap(file.name, dtype="f8", mode="w+", shape=(1000, 1000))
        mapped[:] = 2.0
        mapped.flush()
        assert numpy.fromfile(file.name).sum() == 2e6


if __name__ == "__main__":
    for part in sys.argv[1:]:
        if part == "children":
            asyncio.run(children())
        else:
            globals()[part]()
        print(part, "ok")
