// Node's `ws`: node ws.mjs FOLDER echo|broadcast PORT. The folder has the package.
import { createRequire } from 'node:module';

const [folder, app, port] = process.argv.slice(2);
const { WebSocketServer } = createRequire(`${folder}/`)('ws');
const options = { host: '127.0.0.1', port: Number(port), perMessageDeflate: false };
const server = new WebSocketServer(options);

function echo(socket) {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
}

function broadcast(socket) {
  socket.on('message', (data, binary) => {
    for (const member of server.clients) member.send(data, { binary });
  });
}

server.on('connection', { echo, broadcast }[app]);
