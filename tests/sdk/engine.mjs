// `flagside evaluate --jsonl` against the published TypeScript engine, over random flags and users.

import { once } from 'node:events';
import { spawn } from 'node:child_process';
import readline from 'node:readline';

import { chapter, check, expect, same } from './support/report.mjs';
import { KotlinRuled, evaluate, v2 } from './support/engine.mjs';
import { generate } from './support/generate.mjs';
import { program } from './support/processes.mjs';

const CASES = Number(process.env.FUZZ_CASES ?? 6000);
const SEED = Number(process.env.FUZZ_SEED ?? 20261121);

/** Asks all requests of one process, in order; gives the replies. */
async function replies(requests, ...args) {
  const child = spawn(program, ['evaluate', '--jsonl', ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = [];
  readline.createInterface(child.stdout).on('line', (line) => lines.push(JSON.parse(line)));
  const exit = once(child, 'close');
  for (const request of requests) {
    if (!child.stdin.write(`${typeof request === 'string' ? request : JSON.stringify(request)}\n`)) await once(child.stdin, 'drain');
  }
  child.stdin.end();
  const [code] = await exit;
  same([code, lines.length], [0, requests.length], 'exit code and replies');
  return lines;
}

// Both leave out an empty `metadata`, and what is null (AE 8; AE 11 row 40).
function written(results) {
  return Object.fromEntries(Object.entries(v2(results)).map(([key, variant]) => {
    const kept = Object.entries(variant).filter(([name, value]) => value !== null && !(name === 'metadata' && Object.keys(value).length === 0));
    return [key, Object.fromEntries(kept)];
  }));
}

export async function run() {
  chapter(`flagside evaluate --jsonl and the TypeScript engine (seed ${SEED})`);
  await check(`${CASES} random questions have the same answer from both engines`, async () => {
    const cases = Array.from({ length: CASES }, (_, at) => generate(SEED + at));
    const given = await replies(cases);
    let variants = 0;
    for (const [at, { flags, user, flagKeys }] of cases.entries()) {
      const wanted = written(evaluate(flags, user, flagKeys, new KotlinRuled()));
      variants += Object.keys(wanted).length;
      same(given[at], { result: wanted }, `seed ${SEED + at}: ${JSON.stringify(cases[at])}`);
    }
    expect(variants > CASES, `only ${variants} variants: the cases say too little`);
    return `${variants} variants`;
  });
  await check('each reply comes before the next request', async () => {
    const child = spawn(program, ['evaluate', '--jsonl'], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = readline.createInterface(child.stdout)[Symbol.asyncIterator]();
    for (let seed = 1; seed < 50; seed += 1) {
      const { flags, user } = generate(seed);
      child.stdin.write(`${JSON.stringify({ flags, user })}\n`);
      const { value } = await lines.next();
      same(JSON.parse(value), { result: written(evaluate(flags, user, undefined, new KotlinRuled())) }, `seed ${seed}`);
    }
    child.stdin.end();
  });
  await check('a context instead of a user, and bad lines between good ones, are answered in order', async () => {
    const flags = [{ key: 'f', variants: { on: { key: 'on' } }, segments: [{ conditions: [[{ selector: ['context', 'user', 'a'], op: 'is', values: ['1'] }]], variant: 'on' }] }];
    const given = await replies([
      { flags, context: { user: { a: '1' } } }, 'not JSON', { flags, user: { a: 1 } }, '{}', '[]', { flags: 7, user: {} }, { flags, user: { a: '2' } },
    ]);
    same(given.map((reply) => reply.result ?? typeof reply.error), [
      { f: { key: 'on' } }, 'string', { f: { key: 'on' } }, 'string', 'string', 'string', {},
    ]);
  });
}
