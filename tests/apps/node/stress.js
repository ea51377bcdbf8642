// Parts of Node.js that lean on the kernel; `node stress.js PART...` fails at the first surprise.
'use strict';
const assert = require('node:assert');
const child = require('node:child_process');
const crypto = require('node:crypto');
const dgram = require('node:dgram');
const events = require('node:events');
const fs = require('node:fs');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const timers = require('node:timers/promises');
const tls = require('node:tls');
const util = require('node:util');
const v8 = require('node:v8');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

const folder = () => fs.mkdtempSync(path.join(os.tmpdir(), 'stress-'));

// Threads that count in shared memory, sleep on it and pass messages; some end in the middle of work.
async function threads() {
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const workers = [];
  for (let i = 0; i < 8; i++) workers.push(new Worker(__filename, { workerData: { shared, rounds: 20000 } }));
  const sums = await Promise.all(workers.map(async (worker) => (await events.once(worker, 'message'))[0]));
  assert.deepStrictEqual(sums, Array(8).fill(20000 * 19999 / 2));
  assert.strictEqual(Atomics.load(shared, 0), 160000);
  Atomics.store(shared, 1, 1);
  Atomics.notify(shared, 1);
  await Promise.all(workers.map((worker) => events.once(worker, 'exit')));
  for (let i = 0; i < 20; i++) {
    const worker = new Worker('for (;;) new Array(1000).fill({})', { eval: true });
    await events.once(worker, 'online');
    await timers.setTimeout(5);
    assert.strictEqual(await worker.terminate(), 1);
  }
}

function thread() {
  const { shared, rounds } = workerData;
  let sum = 0;
  for (let i = 0; i < rounds; i++) {
    Atomics.add(shared, 0, 1);
    sum += i;
  }
  parentPort.postMessage(sum);
  Atomics.wait(shared, 1, 0);
}

async function children() {
  const run = util.promisify(child.execFile);
  assert.strictEqual((await run('echo', ['hello'])).stdout, 'hello\n');
  const big = child.execSync('head -c 20000000 /dev/zero | tr "\\0" x', { maxBuffer: 30000000 });
  assert.strictEqual(big.length, 20000000);
  await assert.rejects(run('/no/such/program'), { code: 'ENOENT' });
  await assert.rejects(run('sh', ['-c', 'exit 7']), { code: 7 });
  await assert.rejects(run('sleep', ['100'], { timeout: 100 }), { signal: 'SIGTERM' });
  // Input streamed through a child that compresses, then one that decompresses.
  const zip = child.spawn('gzip', ['-1']);
  const unzip = child.spawn('gunzip');
  zip.stdout.pipe(unzip.stdin);
  const data = crypto.randomBytes(5000000);
  zip.stdin.end(data);
  const parts = [];
  for await (const part of unzip.stdout) parts.push(part);
  assert.ok(Buffer.concat(parts).equals(data));
  // A fork talks over its channel, takes a server's socket, and is ended by a signal.
  const forked = child.fork(__filename, ['echo']);
  forked.send({ number: 41 });
  assert.deepStrictEqual((await events.once(forked, 'message'))[0], { number: 42 });
  const server = net.createServer().listen(0, '127.0.0.1');
  await events.once(server, 'listening');
  const { port } = server.address();
  forked.send('serve', server);
  assert.strictEqual((await events.once(forked, 'message'))[0], 'serving');
  server.close();
  const socket = net.connect(port, '127.0.0.1');
  assert.strictEqual(String((await events.once(socket, 'data'))[0]), 'from the child');
  forked.kill('SIGKILL');
  assert.deepStrictEqual(await events.once(forked, 'exit'), [null, 'SIGKILL']);
  await Promise.all(Array.from({ length: 50 }, (_, i) => run('sh', ['-c', `echo ${i}`]).then(
    (result) => assert.strictEqual(result.stdout, `${i}\n`))));
}

function echo() {
  process.on('message', (message, handle) => {
    if (message !== 'serve') return process.send({ number: message.number + 1 });
    handle.on('connection', (socket) => socket.end('from the child'));
    process.send('serving');
  });
}

async function watch() {
  const place = folder();
  const seen = new Set();
  const watcher = fs.watch(place, (kind, name) => seen.add(`${kind} ${name}`));
  await timers.setTimeout(50);
  const file = path.join(place, 'a');
  fs.writeFileSync(file, 'one');
  await until(() => seen.has('rename a') && seen.has('change a'));
  seen.clear();
  fs.truncateSync(file, 0);
  await until(() => seen.has('change a'));
  fs.renameSync(file, path.join(place, 'b'));
  await until(() => seen.has('rename a') && seen.has('rename b'));
  seen.clear();
  fs.unlinkSync(path.join(place, 'b'));
  await until(() => seen.has('rename b'));
  watcher.close();
  // The file itself, changed by another process; and by polling.
  fs.writeFileSync(file, 'one');
  const changes = events.once(fs.watch(file, { persistent: true }), 'change');
  child.execSync(`echo two >>${file}`);
  assert.strictEqual((await changes)[0], 'change');
  const polled = new Promise((done) => fs.watchFile(file, { interval: 20 }, (now) => done(now.size)));
  await timers.setTimeout(60);
  fs.writeFileSync(file, 'longer than before');
  assert.strictEqual(await polled, 18);
  fs.unwatchFile(file);
}

async function until(condition) {
  for (let i = 0; i < 400; i++) {
    if (condition()) return;
    await timers.setTimeout(10);
  }
  assert.fail(`never: ${condition}`);
}

async function ciphers() {
  const sha = crypto.createHash('sha256').update('abc').digest('hex');
  assert.strictEqual(sha, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  const derive = util.promisify(crypto.pbkdf2);
  const keys = await Promise.all(Array.from({ length: 16 }, () => derive('secret', 'salt', 20000, 32, 'sha512')));
  assert.ok(keys.every((key) => key.equals(keys[0])));
  const scrypt = await util.promisify(crypto.scrypt)('secret', 'salt', 32);
  assert.strictEqual(scrypt.length, 32);
  const random = await Promise.all(Array.from({ length: 100 }, () => util.promisify(crypto.randomBytes)(100000)));
  assert.strictEqual(new Set(random.map((bytes) => bytes.toString('hex', 0, 16))).size, 100);
  const { publicKey, privateKey } = await util.promisify(crypto.generateKeyPair)('rsa', { modulusLength: 2048 });
  const signature = crypto.sign('sha256', Buffer.from('text'), privateKey);
  assert.ok(crypto.verify('sha256', Buffer.from('text'), publicKey, signature));
  const cipher = crypto.createCipheriv('aes-256-gcm', scrypt, random[0].subarray(0, 12));
  const sealed = Buffer.concat([cipher.update(random[1]), cipher.final()]);
  const opener = crypto.createDecipheriv('aes-256-gcm', scrypt, random[0].subarray(0, 12));
  opener.setAuthTag(cipher.getAuthTag());
  assert.ok(Buffer.concat([opener.update(sealed), opener.final()]).equals(random[1]));
}

async function files() {
  const place = folder();
  const data = crypto.randomBytes(3000000);
  const file = path.join(place, 'data');
  await fs.promises.writeFile(file, data, { flush: true });
  await fs.promises.copyFile(file, `${file}2`, fs.constants.COPYFILE_FICLONE);
  assert.ok((await fs.promises.readFile(`${file}2`)).equals(data));
  await assert.rejects(fs.promises.copyFile(file, `${file}2`, fs.constants.COPYFILE_EXCL), { code: 'EEXIST' });
  const handle = await fs.promises.open(file, 'r+');
  await handle.writev([Buffer.from('ab'), Buffer.from('cd')], 10);
  await handle.datasync();
  const got = Buffer.alloc(4);
  await handle.readv([got.subarray(0, 1), got.subarray(1)], 10);
  assert.strictEqual(String(got), 'abcd');
  await handle.truncate(5);
  assert.strictEqual((await handle.stat({ bigint: true })).size, 5n);
  await handle.utimes(1, 2);
  assert.strictEqual((await handle.stat()).mtimeMs, 2000);
  await handle.close();
  fs.symlinkSync('data', path.join(place, 'link'));
  assert.strictEqual(fs.realpathSync(path.join(place, 'link')), file);
  await Promise.all(Array.from({ length: 2000 }, (_, i) => fs.promises.writeFile(path.join(place, `f${i}`), `${i}`)));
  await fs.promises.cp(place, `${place}-copy`, { recursive: true, verbatimSymlinks: true });
  let count = 0;
  for await (const entry of await fs.promises.opendir(`${place}-copy`)) count += entry.isFile() ? 1 : 0;
  assert.strictEqual(count, 2002);
  await fs.promises.rm(`${place}-copy`, { recursive: true });
  assert.ok(!fs.existsSync(`${place}-copy`));
  assert.ok(fs.statfsSync(place).bsize > 0);
}

async function sockets() {
  const place = path.join(folder(), 'socket');
  const server = net.createServer((socket) => socket.pipe(socket)).listen(place);
  await events.once(server, 'listening');
  const data = crypto.randomBytes(4000000);
  await Promise.all(Array.from({ length: 20 }, async () => {
    const socket = net.connect(place);
    socket.end(data);
    const parts = [];
    for await (const part of socket) parts.push(part);
    assert.ok(Buffer.concat(parts).equals(data));
  }));
  server.close();
  const [a, b] = [dgram.createSocket('udp4'), dgram.createSocket('udp4')];
  a.bind(0, '127.0.0.1');
  await events.once(a, 'listening');
  b.send('datagram', a.address().port, '127.0.0.1');
  assert.strictEqual(String((await events.once(a, 'message'))[0]), 'datagram');
  a.close();
  b.close();
  await assert.rejects(events.once(net.connect(1, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
  // TLS by a shared key.
  const key = { psk: Buffer.from('00112233445566778899aabbccddeeff', 'hex'), identity: 'me' };
  const ciphers = 'PSK-AES128-GCM-SHA256:@SECLEVEL=0';
  const secure = tls.createServer({ ciphers, maxVersion: 'TLSv1.2', pskCallback: () => key.psk }, (s) => s.pipe(s));
  secure.listen(0, '127.0.0.1');
  await events.once(secure, 'listening');
  const options = { ciphers, maxVersion: 'TLSv1.2', pskCallback: () => key, checkServerIdentity: () => undefined };
  const socket = tls.connect({ port: secure.address().port, host: '127.0.0.1', ...options });
  socket.write('secret');
  assert.strictEqual(String((await events.once(socket, 'data'))[0]), 'secret');
  socket.destroy();
  secure.close();
  const web = http2.createServer((_request, reply) => reply.end('two')).listen(0, '127.0.0.1');
  await events.once(web, 'listening');
  const session = http2.connect(`http://127.0.0.1:${web.address().port}`);
  await Promise.all(Array.from({ length: 50 }, async () => {
    const stream = session.request({ ':path': '/' });
    assert.strictEqual(String((await events.once(stream, 'data'))[0]), 'two');
  }));
  session.close();
  web.close();
}

// A module of WebAssembly: what lies outside of its memory is found by SIGSEGV.
function wasm() {
  const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1,
    7, 8, 1, 4, 108, 111, 97, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11];
  const { load } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes))).exports;
  for (let i = 0; i < 2000; i++) {
    assert.strictEqual(load(i), 0);
    assert.throws(() => load(65536 + i * 1000), WebAssembly.RuntimeError);
  }
  const recurse = (n) => n === 0 ? 0 : 1 + recurse(n - 1);
  for (let i = 0; i < 50; i++) assert.throws(() => recurse(1e9), RangeError);
}

async function system() {
  assert.ok(os.cpus().length > 0 && os.cpus()[0].model !== 'unknown');
  assert.ok(os.availableParallelism() > 0);
  assert.ok(os.freemem() > 0 && os.totalmem() >= os.freemem());
  assert.ok(Object.keys(os.networkInterfaces()).includes('lo'));
  assert.strictEqual(os.userInfo().username, 'root');
  assert.ok(process.memoryUsage().rss > 10000000);
  assert.ok(process.resourceUsage().userCPUTime > 0);
  assert.strictEqual(process.title, 'node');
  os.setPriority(5);
  assert.strictEqual(os.getPriority(), 5);
  process.title = 'renamed';
  assert.ok(fs.readFileSync('/proc/self/cmdline', 'latin1').startsWith('renamed'));
  for (const signal of ['SIGHUP', 'SIGUSR2', 'SIGWINCH', 'SIGTERM']) {
    const got = events.once(process, signal);
    process.kill(process.pid, signal);
    assert.strictEqual((await got)[0], signal);
  }
  const start = process.hrtime.bigint();
  await timers.setTimeout(200);
  const waited = Number(process.hrtime.bigint() - start) / 1e6;
  assert.ok(waited >= 199 && waited < 2000, `${waited} ms`);
  // A heap of a few hundred MB is collected; a snapshot of the heap is written.
  for (let i = 0; i < 30; i++) Array.from({ length: 200000 }, (_, n) => ({ n, text: `${n}` }));
  const snapshot = v8.writeHeapSnapshot(path.join(folder(), 'heap'));
  assert.ok(fs.statSync(snapshot).size > 1000000);
  // Its own crash is an ordinary end by a signal, too little memory an abort.
  const crash = child.spawnSync(process.execPath, ['-e', 'process.kill(process.pid, "SIGSEGV"); for (;;);']);
  assert.strictEqual(crash.signal, 'SIGSEGV');
  const full = child.spawnSync(process.execPath, ['--max-old-space-size=30', '-e', 'const a = []; for (;;) a.push([1, 2, 3])']);
  assert.strictEqual(full.signal, 'SIGABRT');
  assert.ok(String(full.stderr).includes('JavaScript heap out of memory'));
}

const parts = { threads, children, watch, ciphers, files, sockets, wasm, system };
async function main() {
  for (const name of process.argv.slice(2)) {
    await parts[name]();
    console.log(name, 'done');
  }
  process.exit(0);
}
if (!isMainThread) thread();
else if (process.argv[2] === 'echo') echo();
else main();
