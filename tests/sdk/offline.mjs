// No upstream at all: `--flags FILE` answers, to every SDK and key; `evaluate` gives the same.

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { chapter, check, expect, same } from './support/report.mjs';
import { evaluate, v1, v2 } from './support/engine.mjs';
import { flags, user } from './support/flags.mjs';
import { nodeClient } from './remote.mjs';
import { program, startProxy } from './support/processes.mjs';
import { question, send } from './support/raw.mjs';
import { sdk } from './support/sdk.mjs';

const { Experiment } = sdk('@amplitude/experiment-node-server');

export async function run() {
  chapter('Flags from a file, no upstream');
  const directory = await mkdtemp(path.join(os.tmpdir(), 'flagside-sdk-'));
  const file = path.join(directory, 'flags.json');
  await writeFile(file, JSON.stringify(flags()));
  const proxy = await startProxy('--flags', file);
  const users = Array.from({ length: 40 }, (_, number) => user(number));

  await check('the Node SDK fetches what the engine gives', async () => {
    const client = nodeClient(proxy.url, 'server-any-key');
    for (const somebody of users) {
      const variants = await client.fetchV2(somebody);
      const wanted = v2(evaluate(flags(), somebody));
      same(Object.fromEntries(Object.entries(variants).map(([key, one]) => [key, [one.key, one.payload, one.metadata]])),
        Object.fromEntries(Object.entries(wanted).map(([key, one]) => [key, [one.key, one.payload, one.metadata]])), somebody.user_id);
    }
  });
  await check('every route and shape is answered', async () => {
    for (const somebody of users) {
      const sdkAnswer = await send(proxy.url, question('server-1', somebody, ['sale']));
      same([sdkAnswer.status, sdkAnswer.json()], [200, v2(evaluate(flags(), somebody, ['sale']))]);
      const context = encodeURIComponent(JSON.stringify(somebody));
      const rest = await send(proxy.url, { target: `/v1/vardata?context=${context}`, headers: { Authorization: 'Api-Key client-2' } });
      same([rest.status, rest.json()], [200, v1(evaluate(flags(), somebody))]);
    }
    for (const target of ['/sdk/v2/flags', '/v1/flags']) {
      const set = await send(proxy.url, { target, headers: { Authorization: 'Api-Key server-3' } });
      same(set.json(), flags(), target);
    }
  });
  await check('the Node SDK evaluates locally with the flags of the file', async () => {
    for (const streamUpdates of [false, true]) {
      const client = Experiment.initializeLocal('server-4', {
        serverUrl: proxy.url, streamServerUrl: proxy.url, streamUpdates, instanceName: `offline ${streamUpdates}`, logLevel: 0,
      });
      await client.start();
      for (const somebody of users.slice(0, 5)) {
        same(Object.keys(client.evaluateV2({ ...somebody })).sort(), Object.keys(evaluate(flags(), somebody)).sort());
      }
      client.stop();
    }
  });
  await check('no answer takes longer than one of a healthy cloud', async () => {
    const answers = await Promise.all(users.map((somebody) => send(proxy.url, question('server-1', somebody))));
    const slowest = Math.round(Math.max(...answers.map(({ took }) => took)));
    expect(slowest < 400, `slowest ${slowest} ms`);
    return `slowest ${slowest} ms`;
  });
  await check('`flagside evaluate` gives what the proxy gives', () => {
    for (const somebody of users.slice(0, 5)) {
      const given = execFileSync(program, ['evaluate', '--flags', file, '--user', JSON.stringify(somebody)]);
      same(JSON.parse(given), v2(evaluate(flags(), somebody)), somebody.user_id);
    }
  });
  await check('flagside ends well', () => proxy.stop());
  await rm(directory, { recursive: true, force: true });
}
