// Local evaluation with the published Node SDK: flags by polling and by stream, cohorts, all through flagside.

import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { cohortFlags, flags, user } from './support/flags.mjs';
import { sdk } from './support/sdk.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

const { Experiment } = sdk('@amplitude/experiment-node-server');
const USERS = Array.from({ length: 30 }, (_, number) => user(number));
const FAST = ['--set', 'sync.flags_interval=1s'];

let names = 0;

function client(url, more = {}) {
  names += 1;
  return Experiment.initializeLocal('server-local', {
    serverUrl: url, streamServerUrl: url, flagConfigPollingIntervalMillis: 200, instanceName: `local ${names}`, logLevel: 0, ...more,
  });
}

function cohorts(url) {
  return { apiKey: 'api', secretKey: 'secret:with:colons', cohortServerUrl: url };
}

async function started(url, more) {
  const made = client(url, more);
  await made.start();
  return made;
}

async function alike(through, direct) {
  for (const somebody of USERS) same(through.evaluateV2({ ...somebody }), direct.evaluateV2({ ...somebody }), somebody.user_id);
  for (const keys of [['theme'], ['seats', 'nothing'], []]) {
    same(through.evaluateV2({ ...USERS[3] }, keys), direct.evaluateV2({ ...USERS[3] }, keys), `${keys}`);
    same(await through.evaluate({ ...USERS[3] }, keys), await direct.evaluate({ ...USERS[3] }, keys), `${keys}`);
  }
}

function versionOf(made) {
  return made.evaluateV2({ ...user(0) }).theme?.payload?.version;
}

export async function run() {
  chapter('Node SDK, local evaluation');
  const cloud = await startCloud();
  const proxy = await startBefore(cloud, ...FAST);
  const clients = [];
  const start = async (...given) => {
    const made = await started(...given);
    clients.push(made);
    return made;
  };
  await check('a client that polls evaluates as it does without flagside', async () => {
    await alike(await start(proxy.url), await start(cloud.url));
  });
  await check('a flag change arrives by polling', async () => {
    const made = await start(proxy.url);
    await cloud.setFlags(flags(2));
    await eventually('version 2', () => versionOf(made) === 2, 5);
  });
  await check('many polls are few upstream requests', async () => {
    for (const made of clients) made.stop();
    await new Promise((resolve) => { setTimeout(resolve, 300); });
    const made = await Promise.all(Array.from({ length: 10 }, () => start(proxy.url, { flagConfigPollingIntervalMillis: 50 })));
    await cloud.takeAsked();
    await new Promise((resolve) => { setTimeout(resolve, 2000); });
    const asked = (await cloud.takeAsked()).filter(({ route }) => route === 'flags').length;
    for (const one of made) one.stop();
    expect(asked <= 8, `${asked} upstream requests in two seconds for 400 polls`);
    return `${asked} for 400 polls`;
  });
  await check('a client that streams evaluates as it does without flagside', async () => {
    await cloud.takeAsked();
    const [through, direct] = [await start(proxy.url, { streamUpdates: true }), await start(cloud.url, { streamUpdates: true })];
    const asked = (await cloud.takeAsked()).filter(({ route }) => route === 'stream');
    same(asked.length, 2, 'streams that reached the cloud');
    await alike(through, direct);
    await cloud.setFlags(flags(3));
    await eventually('version 3 by stream', () => versionOf(through) === 3, 2);
  });
  await check('a client whose stream cannot be had polls', async () => {
    await cloud.fail('refused');
    const made = await start(proxy.url, { streamUpdates: true });
    expect(versionOf(made) !== undefined, 'it has no flags');
    await cloud.fail(null);
  });
  await check('user and group cohorts are synced through flagside', async () => {
    await cloud.setFlags([...flags(4), ...cohortFlags(4)]);
    await eventually('the cohort flags', async () => {
      const made = await started(proxy.url);
      made.stop();
      return made.evaluateV2({ ...user(1) }).vip !== undefined;
    });
    const through = await start(proxy.url, { cohortSyncConfig: cohorts(proxy.url) });
    await alike(through, await start(cloud.url, { cohortSyncConfig: cohorts(cloud.url) }));
    const [member, other] = [through.evaluateV2({ ...user(1) }), through.evaluateV2({ ...user(2) })];
    same([member.vip.key, member.partner.key, other.vip.key, other.partner.key], ['on', 'on', 'off', 'off']);
  });
  await check('a client starts while the cloud hangs, once flagside has the flags', async () => {
    await cloud.fail('hanging');
    const began = performance.now();
    const made = await start(proxy.url);
    const took = performance.now() - began;
    await cloud.fail(null);
    same(versionOf(made), 4);
    expect(took < 1000, `it took ${Math.round(took)} ms`);
  });
  for (const made of clients) made.stop();
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}
