// The published Python SDK, remote and local evaluation.

import { once } from 'node:events';
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';

import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { cohortFlags, flags, user } from './support/flags.mjs';
import { evaluate } from './support/engine.mjs';
import { python } from './support/sdk.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

const USERS = Array.from({ length: 20 }, (_, number) => user(number));
const KEY = 'server-python';

/** A Python process with SDK clients in it; `ask` gives what client.py says to a request. */
function startPython() {
  const script = path.join(path.dirname(new URL(import.meta.url).pathname), 'client.py');
  const child = spawn(python, ['-B', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const waiting = [];
  readline.createInterface(child.stdout).on('line', (line) => waiting.shift()?.(JSON.parse(line)));
  const ended = once(child, 'exit').then(([code]) => ({ error: `the Python process ended with ${code}` }));
  const ask = (request) => {
    const reply = new Promise((resolve) => { waiting.push(resolve); });
    child.stdin.write(`${JSON.stringify({ key: KEY, how: 'remote', ...request })}\n`);
    return Promise.race([reply, ended]);
  };
  return { ask, stop: () => child.kill() };
}

export async function run() {
  chapter('Python SDK');
  const cloud = await startCloud();
  const proxy = await startBefore(cloud, '--set', 'sync.flags_interval=1s');
  const { ask, stop } = startPython();
  const both = async (request, about) => {
    const [through, direct] = [await ask({ ...request, url: proxy.url }), await ask({ ...request, url: cloud.url })];
    expect(!through.error && !direct.error, `${about}: ${through.error ?? direct.error}`);
    same(through.variants, direct.variants, about);
    expect(Object.keys(through.variants).length > 0, `${about}: no variants`);
    return through.variants;
  };
  const options = [
    ['all flags', undefined],
    ['some flags', { flagKeys: ['sale', 'theme'] }],
    ['no tracking', { tracksAssignment: false, tracksExposure: false }],
    ['odd flag keys', { flagKeys: ['?>~ÿ', 'theme', 'flag with space'], tracksAssignment: true }],
  ];
  for (const [name, given] of options) {
    await check(`fetch_v2 gives what the cloud gives: ${name}`, async () => {
      for (const somebody of [...USERS, USERS[3]]) {
        const variants = await both({ user: somebody, ...(given && { options: given }) }, somebody.user_id);
        expect(given?.flagKeys || Object.keys(variants).length === flags().length, 'flags are missing');
      }
    });
  }
  await check('a second fetch of a user asks the cloud nothing', async () => {
    await ask({ url: proxy.url, user: user(500) });
    await cloud.takeAsked();
    for (let times = 0; times < 10; times += 1) await ask({ url: proxy.url, user: user(500) });
    same(await cloud.count(), 0);
  });
  await check('local evaluation by polling gives what the cloud gives', async () => {
    for (const somebody of USERS) await both({ how: 'local', user: somebody }, somebody.user_id);
  });
  await check('local evaluation by stream gives what the cloud gives', async () => {
    await cloud.takeAsked();
    for (const somebody of USERS) await both({ how: 'local', user: somebody, stream: true }, somebody.user_id);
    same(await cloud.count('stream'), 2, 'streams that reached the cloud');
  });
  await check('a flag change arrives by polling and by stream', async () => {
    await cloud.setFlags(flags(2));
    for (const stream of [false, true]) {
      await eventually('version 2', async () => {
        const { variants } = await ask({ url: proxy.url, how: 'local', user: user(0), stream });
        return variants?.theme?.payload?.version === 2;
      }, 5);
    }
  });
  await check('cohorts are synced through flagside', async () => {
    await cloud.setFlagsOf('server-python-cohorts', [...flags(), ...cohortFlags()]);
    for (const number of [1, 2, 7, 3]) {
      const variants = await both({ how: 'local', key: 'server-python-cohorts', user: user(number), cohorts: true }, `${number}`);
      same(variants.vip.key, number === 1 || number === 7 ? 'on' : 'off');
    }
  });
  await check('an outage costs the Python SDK no answer', async () => {
    await cloud.fail('hanging');
    let slowest = 0;
    for (const somebody of [...USERS.slice(0, 5), user(600), user(601), user(602)]) {
      const { variants, error, took } = await ask({ url: proxy.url, user: somebody });
      same(Object.entries(variants ?? { error }).map(([key, { key: variant }]) => [key, variant]).sort(),
        Object.entries(evaluate(flags(2), somebody)).map(([key, { key: variant }]) => [key, variant]).sort(), somebody.user_id);
      slowest = Math.max(slowest, took);
    }
    await cloud.fail(null);
    expect(slowest < 1000, `slowest ${Math.round(slowest)} ms`);
    return `slowest ${Math.round(slowest)} ms`;
  });
  await check('a client that was refused works on once it is not', async () => {
    const key = 'server-python-late';
    await cloud.fail('refused');
    const { variants } = await ask({ url: proxy.url, key, user: user(1) });
    same(variants, {}, 'a key that nothing is known of');
    await cloud.fail(null);
    await eventually('an answer', async () => {
      const reply = await ask({ url: proxy.url, key, user: user(1) });
      return Object.keys(reply.variants ?? {}).length === flags().length;
    });
  });
  stop();
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}
