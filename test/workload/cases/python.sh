# Threads, subprocess, multiprocessing, asyncio, sqlite3, mmap, signal.
command -v python3 >/dev/null || { echo "no python3" >&2; exit 77; }
cat >program.py <<'EOF'
import asyncio, concurrent.futures, mmap, multiprocessing, os, queue, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time

def square(x): return x * x

def main():
    total = 0; lock = threading.Lock()
    def add():
        nonlocal total
        for _ in range(2000):
            with lock: total += 1
    threads = [threading.Thread(target=add) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print("threads", total)
    print("subprocess", subprocess.run(["tr", "a-z", "A-Z"], input=b"hello", capture_output=True).stdout)
    print("status", subprocess.run(["sh", "-c", "exit 3"]).returncode, subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as pool:
            print(method, pool.map(square, range(8)))
    async def tcp():
        async def serve(reader, writer):
            writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"over loopback\n"); print("asyncio", await reader.readline()); writer.close(); server.close()
        process = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
        print((await process.communicate())[0])
        print(await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(5)]))
    asyncio.run(tcp())
    db = sqlite3.connect("data.db"); db.execute("create table t(a, b)")
    db.executemany("insert into t values(?, ?)", [(i, str(i)) for i in range(1000)]); db.commit()
    print("sqlite", db.execute("select sum(a), count(*) from t").fetchone())
    with open("mapped", "wb+") as f:
        f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[4096:4101] = b"hello"; m.flush(); f.seek(4096); print("mmap", f.read(5)); m.close()
    got = []
    signal.signal(signal.SIGALRM, lambda *a: got.append("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.02)
    signal.pause(); print(got)
    left, right = socket.socketpair(); socket.send_fds(left, [b"x"], [os.open("mapped", os.O_RDONLY)])
    data, fds, _, _ = socket.recv_fds(right, 10, 1); print("passed", data, os.fstat(fds[0]).st_size)
    with concurrent.futures.ProcessPoolExecutor(2) as ex: print(sum(ex.map(square, range(100))))
    print(os.cpu_count() >= 1, os.getpid() > 0, sys.platform)
    pid, fd = os.forkpty()
    if pid == 0: os.execvp("sh", ["sh", "-c", "stty size >/dev/null; test -t 0 && echo terminal"])
    out = b""
    try:
        while chunk := os.read(fd, 100): out += chunk
    except OSError: pass
    os.waitpid(pid, 0); print(out)

if __name__ == "__main__": main()
EOF
python3 program.py
