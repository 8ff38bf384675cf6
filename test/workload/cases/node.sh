command -v node >/dev/null || { echo "no node" >&2; exit 77; }
cat >worker.js <<'EOF'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const fs = require('fs'), http = require('http'), cp = require('child_process'), zlib = require('zlib');
if (!isMainThread) { let s = 0; for (let i = 0; i < 1e6; i++) s += i % workerData; parentPort.postMessage(s); }
else (async () => {
  const results = await Promise.all([3, 5, 7, 11].map(n => new Promise((ok, bad) => { const w = new Worker(__filename, { workerData: n }); w.on('message', ok); w.on('error', bad); })));
  console.log('workers', results.join(' '));
  await fs.promises.mkdir('d/e', { recursive: true });
  await Promise.all([...Array(50).keys()].map(i => fs.promises.writeFile(`d/e/${i}`, 'x'.repeat(i))));
  console.log('files', (await fs.promises.readdir('d/e')).length, (await fs.promises.stat('d/e/49')).size);
  console.log('child', cp.execSync('echo from the child').toString().trim());
  const server = http.createServer((q, r) => r.end('answer ' + q.url)).listen(0, '127.0.0.1', () =>
    http.get({ port: server.address().port, host: '127.0.0.1', path: '/x' }, r => { let b = ''; r.on('data', d => b += d); r.on('end', () => { console.log(b); server.close(); }); }));
  console.log('zlib', zlib.gunzipSync(zlib.gzipSync(Buffer.alloc(100000, 'a'))).length);
  const watcher = fs.watch('d'); watcher.on('change', (t, n) => { console.log('watch', n); watcher.close(); }); setTimeout(() => fs.writeFileSync('d/new', ''), 50);
})();
EOF
node worker.js | sort
