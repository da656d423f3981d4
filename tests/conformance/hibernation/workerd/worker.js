// A Durable Object that performs the operations of a scenario, and logs its events. Each
// step is a request, in the language of the scenarios; the last request returns the log.
import { DurableObject } from "cloudflare:workers";

// The state that outlives an object: it is stored outside, by the name of the room.
const worlds = new Map();
const worldOf = (id) => {
  const key = String(id);
  if (!worlds.has(key)) {
    worlds.set(key, { log: [], handlers: {}, instances: 0, open: new Set(), waited: new Set(), moves: 0 });
  }
  return worlds.get(key);
};

const toHex = (buffer) =>
  [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const fromHex = (text) =>
  Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16));

const decode = (value) => {
  if (Array.isArray(value)) return value.map(decode);
  switch (value?.$) {
    case "undefined":
      return undefined;
    case "string":
      return value.unit.repeat(value.count);
    case "float":
      return Number(value.value);
  }
  return value;
};

const encode = (value) => {
  if (value === undefined) return { $: "undefined" };
  if (typeof value === "number" && !Number.isFinite(value)) return { $: String(value) };
  if (value instanceof Date) return { $: "date" }; // The time is not recorded.
  return value;
};

const payload = (data) =>
  typeof data === "string" ? { text: data } : { bytes: toHex(data) };

export class Room extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.world = worldOf(ctx.id);
    this.number = ++this.world.instances;
    this.labels = new WeakMap();
    this.sockets = new Map();
    const { construct } = this.world.handlers;
    if (construct) {
      const entry = this.log({ event: "construct" });
      for (const op of construct) {
        if (op.op === "block") this.block(op, "construct", null);
        else entry.results = this.performNow([op], null);
      }
    }
  }

  log(entry) {
    this.world.log.push(entry);
    this.world.moves++;
    return entry;
  }

  // -- names ---------------------------------------------------------------------------

  name(socket, label) {
    this.labels.set(socket, label);
    this.sockets.set(label, socket);
  }

  labelOf(socket) {
    if (socket === null || socket === undefined) return socket ?? null;
    return this.labels.get(socket) ?? socket.deserializeAttachment()?.label ?? "?";
  }

  find(label, own) {
    if (label === undefined || label === "self") return own;
    return (
      this.sockets.get(label) ??
      this.ctx.getWebSockets().find((socket) => this.labelOf(socket) === label)
    );
  }

  // -- operations ------------------------------------------------------------------------

  // Performs operations. After one that waits, the results go to a new entry.
  async perform(ops, own, entry, of) {
    for (;;) {
      const number = ops.findIndex(({ op }) => op === "wait" || op === "block");
      const rest = number < 0 ? [] : ops.slice(number + 1);
      const waits = ops[number];
      const gate = waits && this.gateOf(waits, own);
      try {
        entry.results = this.performNow(number < 0 ? ops : ops.slice(0, number), own);
      } finally {
        this.world.moves++;
      }
      if (!waits) return;
      if (waits.op === "wait") await this.opened(gate);
      else await this.block(waits, of, own);
      entry = this.log({ event: "resumed", of, ws: this.labelOf(own), gate });
      if (own) entry.readyState = own.readyState;
      ops = rest;
    }
  }

  async opened(gate) {
    this.world.waited.add(gate);
    while (!this.world.open.has(gate)) await scheduler.wait(2);
  }

  // Returns the name of a gate, with the name of the socket and the instance's number.
  gateOf({ gate }, own) {
    return gate.replace("%ws", this.labelOf(own)).replace("%n", this.number);
  }

  block(op, of, own) {
    const gate = this.gateOf(op, own);
    return this.ctx.blockConcurrencyWhile(async () => {
      this.log({ event: "blocking", of, gate });
      await this.opened(gate);
      const entry = this.log({ event: "unblocking", of, gate });
      entry.results = this.performNow(op.do ?? [], own);
    });
  }

  performNow(ops, own) {
    const results = [];
    ops.forEach((op, step) => {
      if (op.op === "throw") throw new Error(op.message ?? "boom");
      try {
        const value = this.call(op, own);
        if (value !== undefined) results.push({ step, ok: true, value: value.value });
      } catch (e) {
        results.push({
          step,
          error: e?.name ?? "thrown",
          dom: e instanceof DOMException || undefined,
          message: String(e?.message ?? e),
        });
      }
    });
    return results;
  }

  call(op, own) {
    const { ctx } = this;
    const socket = this.find(op.ws, own);
    const keep = (value) => ({ value: encode(value) });
    const unlessNothing = (value) => (value === undefined ? undefined : keep(value));
    switch (op.op) {
      case "acceptWebSocket":
        return unlessNothing(
          "tags" in op ? ctx.acceptWebSocket(socket, decode(op.tags)) : ctx.acceptWebSocket(socket),
        );
      case "send":
        return unlessNothing(socket.send("bytes" in op ? fromHex(op.bytes) : op.text));
      case "close":
        return unlessNothing(
          socket.close(...("reason" in op ? [op.code, op.reason] : "code" in op ? [op.code] : [])),
        );
      case "readyState":
        return keep(socket.readyState);
      case "attach":
        return unlessNothing(socket.serializeAttachment(decode(op.value)));
      case "attachment":
        return keep(socket.deserializeAttachment());
      case "getTags":
        return keep(ctx.getTags(socket));
      case "getWebSockets": {
        const list = "tag" in op ? ctx.getWebSockets(op.tag) : ctx.getWebSockets();
        return { value: list.map((one) => this.labelOf(one)) };
      }
      case "states":
        return { value: ctx.getWebSockets().map((one) => [this.labelOf(one), one.readyState]) };
      case "setAutoResponse":
        return unlessNothing(
          op.none
            ? ctx.setWebSocketAutoResponse()
            : ctx.setWebSocketAutoResponse(
                new WebSocketRequestResponsePair(op.request, op.response),
              ),
        );
      case "getAutoResponse": {
        const pair = ctx.getWebSocketAutoResponse();
        return { value: pair ? { request: pair.request, response: pair.response } : encode(pair) };
      }
      case "autoResponseTimestamp":
        return keep(ctx.getWebSocketAutoResponseTimestamp(socket));
      case "setEventTimeout":
        return unlessNothing(ctx.setHibernatableWebSocketEventTimeout(op.ms));
      case "getEventTimeout":
        return keep(ctx.getHibernatableWebSocketEventTimeout());
      case "abort":
        return unlessNothing(ctx.abort(op.reason));
      case "instances":
        return keep(this.world.instances);
    }
    throw new Error(`no such operation: ${op.op}`);
  }

  // -- events ----------------------------------------------------------------------------

  async note(event, socket, more, ops) {
    const entry = { event, ws: this.labelOf(socket), ...more, readyState: socket.readyState };
    this.log(entry);
    if (ops) await this.perform(ops, socket, entry, event);
  }

  // The number of arguments is recorded, too.

  webSocketMessage(...args) {
    const [socket, data] = args;
    const { message } = this.world.handlers;
    const ops = Array.isArray(message) ? message : message?.[data];
    return this.note("message", socket, { ...payload(data), argumentCount: args.length }, ops);
  }

  webSocketClose(...args) {
    const [socket, code, reason, wasClean] = args;
    const more = { code, reason, wasClean, argumentCount: args.length };
    return this.note("close", socket, more, this.world.handlers.close);
  }

  webSocketError(...args) {
    const [socket, error] = args;
    const more = { error: error?.name ?? null, message: error?.message ?? String(error) };
    return this.note("error", socket, { ...more, argumentCount: args.length }, this.world.handlers.error);
  }

  async fetch(request) {
    const step = JSON.parse(new URL(request.url).searchParams.get("step"));
    if (step.object) {
      const entry = {};
      await this.perform(step.object, null, entry, "fetch");
      return Response.json(entry.results);
    }
    const [client, server] = Object.values(new WebSocketPair());
    this.name(client, `${step.connect}:client`);
    this.name(server, step.connect);
    const tags = "tags" in step ? { tags: step.tags } : {};
    const ops = step.do ?? [{ op: "acceptWebSocket", ...tags }];
    const entry = this.log({ event: "connect", ws: step.connect });
    await this.perform(ops, server, entry, "connect");
    return new Response(null, { status: 101, webSocket: client });
  }
}

export default {
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/moves") {
      const moves = {};
      for (const [key, world] of worlds) if (world.room) moves[world.room] = world.moves;
      return Response.json(moves);
    }
    const room = searchParams.get("room");
    const id = env.ROOM.idFromName(room);
    const world = worldOf(id);
    switch (pathname) {
      case "/begin":
        world.room = room;
        world.handlers = await request.json();
        return new Response("");
      case "/open":
        world.open.add(searchParams.get("gate"));
        world.moves++;
        return Response.json({ waited: world.waited.has(searchParams.get("gate")) });
      case "/end":
        worlds.delete(String(id));
        world.open.has = () => true; // Operations that still wait continue.
        return Response.json(world.log);
    }
    return env.ROOM.get(id).fetch(request);
  },
};
