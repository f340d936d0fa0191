// FeatBit's published SDKs, by stream and by polling, and plain questions: with an upstream that is there, that changes,
// and that is gone.

import { once } from 'node:events';
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { isDeepStrictEqual } from 'node:util';

import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { SECRETS, flags, user, verdict } from './support/featbit.mjs';
import { python, sdk } from './support/sdk.mjs';
import { send } from './support/raw.mjs';
import { startFeatbit, startProxy } from './support/processes.mjs';

const { DataSyncModeEnum, FbClientBuilder, UserBuilder } = sdk('@featbit/node-server-sdk');

const KEYS = flags().map(({ key }) => key);
const USERS = Array.from({ length: 12 }, (_, number) => user(number));
const SILENT = { error() {}, warn() {}, info() {}, debug() {} };

/** A Node client; `mode` is `stream` or `poll`. */
function nodeClient(url, mode) {
  const builder = new FbClientBuilder().sdkKey(SECRETS.server).eventsUri(url).flushInterval(200).logger(SILENT);
  if (mode === 'stream') return builder.streamingUri(url.replace('http', 'ws')).build();
  return builder.dataSyncMode(DataSyncModeEnum.POLLING).pollingUri(url).pollingInterval(1000).build();
}

async function nodeValues(client, somebody) {
  const builder = new UserBuilder(somebody.keyId).name(somebody.name);
  for (const [name, value] of Object.entries(somebody.custom)) builder.custom(name, value);
  const own = builder.build();
  const values = await Promise.all(KEYS.map((key) => client.stringVariation(key, own, 'none')));
  return Object.fromEntries(KEYS.map((key, at) => [key, values[at]]));
}

function startPython() {
  const script = path.join(path.dirname(new URL(import.meta.url).pathname), 'featbit-client.py');
  const child = spawn(python, ['-B', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const waiting = [];
  readline.createInterface(child.stdout).on('line', (line) => waiting.shift()?.(JSON.parse(line)));
  const ended = once(child, 'exit').then(([code]) => ({ error: `the Python process ended with ${code}` }));
  const ask = (request) => {
    const reply = new Promise((resolve) => { waiting.push(resolve); });
    child.stdin.write(`${JSON.stringify({ secret: SECRETS.server, keys: KEYS, ...request })}\n`);
    return Promise.race([reply, ended]);
  };
  return { ask, stop: () => child.kill() };
}

/** The plain question about a user. */
function question(somebody) {
  const customizedProperties = Object.entries(somebody.custom).map(([name, value]) => ({ name, value }));
  const body = JSON.stringify({ user: { keyId: somebody.keyId, name: somebody.name, customizedProperties } });
  const headers = { Authorization: SECRETS.server, 'Content-Type': 'application/json' };
  return { method: 'POST', target: '/api/public/featureflag/evaluate', headers, body };
}

async function evaluated(url, somebody) {
  const answer = await send(url, question(somebody));
  expect(answer.status === 200, `${answer.status} ${answer.text}`);
  const values = Object.fromEntries(answer.json().map(({ key, variation }) => [key, variation.value]));
  return { values, answer };
}

export async function run() {
  chapter('FeatBit');
  const cloud = await startFeatbit();
  const before = () => startProxy('--featbit-upstream', cloud.url);
  const proxy = await before();
  const clients = { stream: nodeClient(proxy.url, 'stream'), poll: nodeClient(proxy.url, 'poll') };
  const { ask, stop } = startPython();
  const values = {
    'the Node SDK by stream': (somebody) => nodeValues(clients.stream, somebody),
    'the Node SDK by polling': (somebody) => nodeValues(clients.poll, somebody),
    'the Python SDK by stream': async (somebody) => (await ask({ url: proxy.url, user: somebody })).values,
    'the evaluate endpoint': async (somebody) => (await evaluated(proxy.url, somebody)).values,
  };
  const everybody = async (ways = Object.keys(values)) => {
    const list = await cloud.flags();
    for (const way of ways) {
      for (const somebody of USERS) same(await values[way](somebody), verdict(list, somebody), `${way}: ${somebody.keyId}`);
    }
  };
  const arrives = async (seconds = 5) => {
    const wanted = verdict(await cloud.flags(), USERS[0]);
    for (const way of Object.keys(values)) {
      await eventually(way, async () => isDeepStrictEqual(await values[way](USERS[0]), wanted), seconds);
    }
  };
  await check('clients start', async () => {
    for (const client of Object.values(clients)) await client.waitForInitialization();
    const { ready, error } = await ask({ url: proxy.url, user: USERS[0] });
    expect(ready, error ?? 'the Python SDK is not ready');
  });
  await check('every way gives what the server gives', () => everybody());
  await check('the server has one stream, whatever the number of clients', async () => {
    const asked = await cloud.takeAsked();
    same(asked.filter(({ route }) => route === 'streaming').length, 1);
    same(asked.filter(({ route }) => route === 'server/latest-all').length <= 1, true, 'polls');
  });
  await check('a change arrives every way', async () => {
    await cloud.change('theme', { isEnabled: false });
    await arrives();
    await everybody();
  });
  await check('insights of both SDKs reach the server', async () => {
    await ask({ url: proxy.url, user: USERS[3], flush: true });
    const users = new Set();
    await eventually('insights', async () => {
      for (const insight of await cloud.takeInsights()) users.add(insight.user.keyId);
      return USERS.every(({ keyId }) => users.has(keyId));
    });
  });
  await check('whatever code a stream is closed with, another one follows', async () => {
    for (const code of [1000, 1001, 1011]) {
      await cloud.takeAsked();
      await cloud.closeStreams(code);
      await eventually(`a stream after ${code}`, async () => (await cloud.takeAsked()).some(({ route }) => route === 'streaming'));
    }
    await cloud.change('theme', { isEnabled: true });
    await arrives();
  });
  await outage(cloud, proxy, everybody);
  await check('a change during the outage arrives after it', async () => {
    await cloud.change('checkout', { isEnabled: false });
    await cloud.fail(null);
    await arrives(20);
    await everybody();
  });
  for (const client of Object.values(clients)) await client.close();
  stop();
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}

async function outage(cloud, proxy, everybody) {
  await check('an outage costs nobody an answer', async () => {
    const list = await cloud.flags();
    await cloud.fail('refused');
    await everybody();
    const late = nodeClient(proxy.url, 'stream');
    await late.waitForInitialization();
    let slowest = 0;
    for (const somebody of [...USERS, user(100), user(101), user(102)]) {
      same(await nodeValues(late, somebody), verdict(list, somebody), `a client that starts now: ${somebody.keyId}`);
      const { values, answer } = await evaluated(proxy.url, somebody);
      same(values, verdict(list, somebody), `the evaluate endpoint: ${somebody.keyId}`);
      slowest = Math.max(slowest, answer.took);
    }
    await late.close();
    expect(slowest < 1000, `slowest ${Math.round(slowest)} ms`);
    return `slowest ${Math.round(slowest)} ms`;
  });
}
