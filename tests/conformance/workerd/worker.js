// Plays a program on the WebSocketPair of workerd. The request has the steps as JSON, in
// the subset of the scenarios' language that random programs use. The response has the
// trace.

const fromHex = (text) =>
  new Uint8Array((text.match(/../g) ?? []).map((digits) => parseInt(digits, 16))).buffer;
const toHex = (buffer) =>
  [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

class Player {
  constructor() {
    const [a, b] = Object.values(new WebSocketPair());
    a.binaryType = b.binaryType = "arraybuffer";
    this.halves = { a, b };
    this.heard = { a: [], b: [] };
    this.listeners = new Map();
    this.moves = 0;
    this.lost = false;
    for (const half of [a, b]) this.watch(half);
  }

  // Depending on its scheduling, workerd loses connections between its halves. A loss
  // before the close event changes the rest of the trace.
  watch(half) {
    let closed = false;
    half.addEventListener("close", ({ code }) => {
      closed = true;
      this.lost ||= code === 1006;
    });
    half.addEventListener("error", () => {
      this.lost ||= !closed;
    });
  }

  async play(steps, calm) {
    const results = [];
    for (const [number, step] of steps.entries()) {
      if (step.op === "settle") await this.settle(calm);
      else this.take(number, step, results);
    }
    await this.settle(calm);
    return { trace: { ...this.heard, results }, lost: this.lost };
  }

  // Waits until nothing has happened for `calm` turns of the event loop.
  async settle(calm) {
    for (let quiet = 0, before = this.moves; quiet < calm; quiet++) {
      await new Promise((done) => setTimeout(done, 1));
      if (this.moves !== before) {
        before = this.moves;
        quiet = -1;
      }
    }
  }

  take(number, step, results, event) {
    if ("when" in step && event.data !== step.when) return;
    this.moves++;
    try {
      const value = this.call(step, event);
      if (value !== undefined) results.push({ step: number, ok: true, value });
    } catch (error) {
      results.push({ step: number, error: error.name, message: error.message });
    }
  }

  call(step, event) {
    const half = this.halves[step.half];
    switch (step.op) {
      case "accept":
        return "allowHalfOpen" in step
          ? half.accept({ allowHalfOpen: step.allowHalfOpen })
          : half.accept();
      case "send":
        return half.send("text" in step ? step.text : fromHex(step.bytes));
      case "echo":
        return half.send(event.data);
      case "close":
        return half.close(...("reason" in step ? [step.code, step.reason] : "code" in step ? [step.code] : []));
      case "listen":
        return half.addEventListener(step.type, this.listener(step), { once: step.once ?? false });
      case "unlisten":
        return half.removeEventListener(step.type, this.listeners.get(step.id) ?? (() => {}));
      case "on":
        half[`on${step.type}`] = step.id === null ? null : this.listener(step);
        return undefined;
      case "readyState":
        return half.readyState;
    }
    throw new Error(`no such step: ${step.op}`);
  }

  listener(step) {
    if (!this.listeners.has(step.id)) {
      this.listeners.set(step.id, (event) => this.hear(step, event));
    }
    return this.listeners.get(step.id);
  }

  hear(step, event) {
    this.moves++;
    const half = event.currentTarget;
    const entry = [step.id, event.type, this.detail(event, half)];
    this.heard[half === this.halves.a ? "a" : "b"].push(entry);
    if (step.do) {
      const results = [];
      entry.push(results);
      step.do.forEach((inner, number) => this.take(number, inner, results, event));
    }
  }

  detail(event, { readyState }) {
    switch (event.type) {
      case "message":
        return typeof event.data === "string" ? { text: event.data } : { bytes: toHex(event.data) };
      case "close":
        return { code: event.code, reason: event.reason, wasClean: event.wasClean, readyState };
      default:
        return { message: event.message, error: event.error?.name ?? null, readyState };
    }
  }
}

export default {
  async fetch(request) {
    const { steps, calm } = await request.json();
    return Response.json(await new Player().play(steps, calm));
  },
};
