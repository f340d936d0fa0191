// What a fake cloud is apart from its contract: a server on loopback that can refuse and come back on the same port, and
// a control URL. A process of its own, so that nothing that the checks compute delays its answers.

import http from 'node:http';

function whole(answer) {
  return (request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    response.on('error', () => {});
    request.on('end', () => answer(request, response, Buffer.concat(chunks).toString()));
  };
}

/** Answers 200 with this value. */
export function json(response, value, type = 'application/json') {
  response.writeHead(200, { 'Content-Type': type }).end(JSON.stringify(value));
}

/** A server; `answer` gets request, response and the whole body, and looks at `fault` itself. */
export class Fake {
  /** How requests fail now: a name of faults.mjs, or `refused`; null while it is healthy. */
  fault = null;

  #port = 0;

  /** `cut` ends what is not the HTTP server's to end when it begins to refuse. */
  constructor(answer, { cut = () => {}, ...options } = {}) {
    this.server = http.createServer(options, whole(answer));
    this.cut = cut;
  }

  /** Every request fails this way from now on; null heals. */
  async fail(fault) {
    if (fault !== 'refused') {
      this.fault = fault;
      if (!this.server.listening) await this.#listen();
    } else if (this.server.listening) {
      this.fault = fault;
      this.cut();
      await new Promise((resolve) => { this.server.close(resolve); this.server.closeAllConnections(); });
    }
  }

  /**
   * Listens, and prints one line, {"url", "control"}: POST to the control URL with {"method": [arguments]} calls the
   * methods of `control`. Ends the process with its standard input.
   */
  async start(control) {
    const door = http.createServer(whole(async (request, response, body) => {
      const results = {};
      for (const [method, given] of Object.entries(JSON.parse(body))) {
        results[method] = (await control[method](...given)) ?? null;
      }
      json(response, results);
    }));
    await this.#listen();
    await new Promise((resolve) => { door.listen(0, '127.0.0.1', resolve); });
    console.log(JSON.stringify({ url: `http://127.0.0.1:${this.#port}`, control: `http://127.0.0.1:${door.address().port}` }));
    process.stdin.on('end', () => process.exit(0)).resume();
  }

  #listen() {
    const { server } = this;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, '127.0.0.1', 1024, () => {
        server.off('error', reject);
        this.#port = server.address().port;
        resolve();
      });
    });
  }
}
