// Load on a sidecar until it is told to end: keep-alive connections, HTTP/2 sessions, slow answers, an event stream.
//
//   node load.mjs PORT     a line on standard input ends it; then one line of JSON: every request that went wrong,
//                          with the times (ms since 1970) at which it was sent and at which it failed
import http from 'node:http';
import http2 from 'node:http2';

const port = Number(process.argv[2]);
const headers = { authorization: 'Api-Key client-0123456789abcdef' };
const outcome = { completed: { http1: 0, http2: 0, slow: 0, stream: 0 }, failed: [] };
let isOver = false;

/** Counts what came of a request that was sent at `sentAt`. */
function note(kind, sentAt, problem) {
  if (problem) outcome.failed.push({ kind, sentAt, failedAt: Date.now(), problem: String(problem) });
  else outcome.completed[kind] += 1;
}

/** One HTTP/1.1 request; resolves to whether it worked. */
function ask(kind, agent, path) {
  return new Promise((resolve) => {
    const sentAt = Date.now();
    const end = (problem) => {
      note(kind, sentAt, problem);
      resolve(!problem);
    };
    const request = http.get({ host: '127.0.0.1', port, path, agent, headers }, (response) => {
      response.on('data', () => {});
      response.on('error', end);
      response.on('end', () => end(response.statusCode === 200 && response.complete ? undefined : `status ${response.statusCode}`));
    });
    request.on('error', end);
  });
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

async function keepAlive(id) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (let n = 0; !isOver; n += 1) if (!(await ask('http1', agent, `/v1/vardata?user_id=${id}-${n % 50}`))) await pause();
  agent.destroy();
}

async function slow(id) {
  const agent = new http.Agent({ keepAlive: true });
  for (let n = 0; !isOver; n += 1) if (!(await ask('slow', agent, `/v1/vardata?user_id=slow-1.2-${id}-${n}`))) await pause();
  agent.destroy();
}

/** One stream of an HTTP/2 session; resolves to whether it worked. */
function askStream(session, path) {
  return new Promise((resolve) => {
    const sentAt = Date.now();
    let status;
    let isDone = false;
    const end = (problem) => {
      if (isDone) return;
      isDone = true;
      note('http2', sentAt, problem);
      resolve(!problem);
    };
    const stream = session.request({ ':path': path, ...headers });
    stream.on('response', (head) => { status = head[':status']; });
    stream.on('data', () => {});
    stream.on('end', () => end(status === 200 ? undefined : `status ${status}`));
    stream.on('error', end);
    stream.on('close', () => end(`closed with code ${stream.rstCode}`));
    stream.end();
  });
}

async function multiplexed(id) {
  while (!isOver) {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    let isGoing = true;
    session.on('goaway', () => { isGoing = false; });
    session.on('close', () => { isGoing = false; });
    session.on('error', () => { isGoing = false; });
    const worker = async (at) => {
      for (let n = 0; isGoing && !isOver && !session.closed; n += 1) {
        if (!(await askStream(session, `/v1/vardata?user_id=h2-${id}-${at}-${n % 50}`))) return;
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, at) => worker(at)));
    session.close();
    await pause();
  }
}

/** An event stream: good if it ends without a reset, whenever that is. */
function listen() {
  return new Promise((resolve) => {
    const sentAt = Date.now();
    const request = http.get({ host: '127.0.0.1', port, path: '/sdk/stream/v1/flags', agent: false, headers }, (response) => {
      response.on('data', () => {});
      response.on('error', (problem) => resolve(note('stream', sentAt, problem)));
      response.on('end', () => resolve(note('stream', sentAt, response.complete ? undefined : 'cut off')));
    });
    request.on('error', (problem) => resolve(note('stream', sentAt, problem)));
  });
}

process.stdin.once('data', () => { isOver = true; });
await Promise.all([
  ...Array.from({ length: 10 }, (_, id) => keepAlive(id)),
  ...Array.from({ length: 4 }, (_, id) => slow(id)),
  ...Array.from({ length: 2 }, (_, id) => multiplexed(id)),
  listen(),
]);
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
