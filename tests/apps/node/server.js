// A cluster of four workers that serve with express: text, work for the CPU, notes kept in /data.
'use strict';
const cluster = require('node:cluster');
const crypto = require('node:crypto');
const fs = require('node:fs');

if (cluster.isPrimary) {
  let stopping = false;
  for (let i = 0; i < 4; i++) cluster.fork();
  cluster.on('exit', (worker, code, signal) => {
    console.log(`worker ${worker.process.pid} ended: ${signal || code}`);
    if (!stopping) cluster.fork();
  });
  process.on('SIGTERM', () => {
    stopping = true;
    cluster.disconnect(() => {
      console.log('stopped');
      process.exit(0);
    });
  });
} else {
  const app = require('express')();
  app.set('etag', false);
  app.get('/', (_request, reply) => reply.send('hello'));
  app.get('/pid', (_request, reply) => reply.send(String(process.pid)));
  app.get('/work', (_request, reply) => {
    const digest = crypto.createHash('sha256');
    const rows = [];
    for (let i = 0; i < 200; i++) rows.push({ id: i, name: `row ${i}` });
    const text = JSON.stringify(rows);
    for (let i = 0; i < 10; i++) digest.update(text);
    reply.json({ digest: digest.digest('hex'), rows });
  });
  app.post('/notes', (request, reply) => {
    const file = fs.createWriteStream('/data/notes', { flags: 'a' });
    request.pipe(file);
    file.on('finish', () => reply.send('kept\n'));
  });
  app.get('/notes', (_request, reply) => reply.sendFile('/data/notes'));
  app.get('/file', (_request, reply) => reply.sendFile(process.execPath));
  const server = app.listen(3000, '0.0.0.0');
  server.keepAliveTimeout = 60000;
}
