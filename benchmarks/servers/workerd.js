// Echoes the messages of a WebSocket. GET /WORKLOAD?n=N does N operations of a workload
// on pairs in memory. Clocks do not advance inside a worker: the client measures the time.

function open() {
  const [client, server] = Object.values(new WebSocketPair());
  client.accept();
  server.accept();
  return [client, server];
}

function echo(server) {
  server.accept();
  server.binaryType = 'arraybuffer';
  server.addEventListener('message', event => server.send(event.data));
  server.addEventListener('close', event => server.close(event.code));
}

// Counts messages. The promise of expect() resolves when all have arrived.
class Tally {
  came = 0;
  expected = 0;

  expect(messages) {
    this.expected += messages;
    return new Promise(resolve => { this.allCame = resolve; });
  }

  count = () => { if (++this.came === this.expected) this.allCame(); };
}

async function burst(n, query) {
  const size = Number(query.get('size')), together = Number(query.get('together'));
  const message = query.has('binary') ? new Uint8Array(size) : 'x'.repeat(size);
  const [client, server] = open(), tally = new Tally();
  server.addEventListener('message', tally.count);
  for (let sent = 0; sent < n; sent += together) {
    const allCame = tally.expect(together);
    for (let i = 0; i < together; i++) client.send(message);
    await allCame;
  }
}

async function pingPong(n, query) {
  const message = 'x'.repeat(Number(query.get('size')));
  const [client, server] = open();
  server.addEventListener('message', event => server.send(event.data));
  await new Promise(resolve => {
    let came = 0;
    client.addEventListener('message', () => {
      if (++came < n) client.send(message); else resolve();
    });
    client.send(message);
  });
}

async function fanOut(n, query) {
  const message = 'x'.repeat(Number(query.get('size')));
  const pairs = Array.from({ length: Number(query.get('pairs')) }, open);
  const tally = new Tally();
  for (const [, server] of pairs) server.addEventListener('message', tally.count);
  for (let sent = 0; sent < n; sent += pairs.length) {
    const allCame = tally.expect(pairs.length);
    for (const [client] of pairs) client.send(message);
    await allCame;
  }
}

async function churn(n, query) {
  const together = Number(query.get('together'));
  for (let closed = 0; closed < n; closed += together) {
    const pairs = Array.from({ length: together }, open);
    const over = pairs.map(([client, server]) => new Promise(resolve => {
      server.addEventListener('close', event => server.close(event.code));
      client.addEventListener('close', resolve);
      client.close(1000);
    }));
    await Promise.all(over);
  }
}

const held = [];

async function idle(n) {
  for (let i = 0; i < n; i++) held.push(open());
}

const workloads = { burst, pingPong, fanOut, churn, idle };

export default {
  async fetch(request) {
    if (request.headers.get('Upgrade') === 'websocket') {
      const [client, server] = Object.values(new WebSocketPair());
      echo(server);
      return new Response(null, { status: 101, webSocket: client });
    }
    const url = new URL(request.url);
    const workload = workloads[url.pathname.slice(1)];
    if (workload) await workload(Number(url.searchParams.get('n')), url.searchParams);
    return new Response('done');
  },
};
