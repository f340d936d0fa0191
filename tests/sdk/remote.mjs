// Remote evaluation with the published Node SDK.

import { chapter, check, expect, same } from './support/report.mjs';
import { cohortFlags, flags, user } from './support/flags.mjs';
import { evaluate, v2 } from './support/engine.mjs';
import { sdk } from './support/sdk.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

const { Experiment } = sdk('@amplitude/experiment-node-server');

/** A Node client for remote evaluation that never asks twice. */
export function nodeClient(url, key = 'server-node') {
  return Experiment.initializeRemote(key, { serverUrl: url, fetchRetries: 0, logLevel: 0, instanceName: `${key} ${url}` });
}

export async function run() {
  chapter('Node SDK, remote evaluation');
  const cloud = await startCloud();
  const proxy = await startBefore(cloud);
  const [direct, through] = [nodeClient(cloud.url), nodeClient(proxy.url)];
  const users = Array.from({ length: 40 }, (_, number) => user(number));
  const variants = [
    ['all flags', undefined],
    ['some flags', { flagKeys: ['sale', 'theme'] }],
    ['a flag that is not there', { flagKeys: ['nothing like it'] }],
    ['an empty list of flags', { flagKeys: [] }],
    ['no tracking', { tracksAssignment: false, tracksExposure: false }],
    ['tracking', { flagKeys: ['checkout'], tracksAssignment: true, tracksExposure: true }],
  ];
  for (const [name, options] of variants) {
    await check(`fetchV2 gives what the cloud gives: ${name}`, async () => {
      for (const somebody of users) {
        same(await through.fetchV2(somebody, options), await direct.fetchV2(somebody, options), somebody.user_id);
        same(await through.fetchV2(somebody, options), await direct.fetchV2(somebody, options), `${somebody.user_id} again`);
      }
    });
  }
  await check('fetch gives what the cloud gives', async () => {
    for (const somebody of users) same(await through.fetch(somebody), await direct.fetch(somebody), somebody.user_id);
  });
  await check('a user without any member is answered', async () => {
    same(await through.fetchV2({}), await direct.fetchV2({}));
  });
  await check('odd users come through unharmed', async () => {
    const odd = [
      { user_id: '~~~???>>>' }, { user_id: 'ÿÿÿþþþ' }, { user_id: '日本語😀' }, { user_id: 'a/b+c=d' },
      { user_id: 'x', user_properties: { deep: { b: 1, a: [1.0, 1e3, null, ''] }, big: 9007199254740993 } },
      { user_id: 'x', user_properties: { text: 'line\nbreak\ttab "quote" \\ / \u007f \u2028' } },
      { user_id: 'x'.repeat(6000), country: 'DE' }, { device_id: 'only', city: 'Zürich?>' },
    ];
    await cloud.tellWho(true);
    try {
      for (const somebody of odd) same(await through.fetchV2(somebody), await direct.fetchV2(somebody), somebody.user_id);
    } finally {
      await cloud.tellWho(false);
    }
  });
  await check('a user of 30 KiB fits into the headers', async () => {
    const big = { ...user(3), user_properties: { ...user(3).user_properties, notes: 'é'.repeat(15_000) } };
    same(await through.fetchV2(big), await direct.fetchV2(big));
  });
  await check('a second fetch of a user asks the cloud nothing', async () => {
    await through.fetchV2(user(500));
    await cloud.takeAsked();
    for (let times = 0; times < 20; times += 1) await through.fetchV2(user(500));
    same(await cloud.count(), 0);
  });
  await check('tracking headers reach the cloud on a miss', async () => {
    await cloud.takeAsked();
    await through.fetchV2(user(501), { tracksAssignment: false, tracksExposure: true });
    const [asked] = (await cloud.takeAsked()).filter(({ route }) => route === 'vardata');
    same([asked?.headers['x-amp-exp-track'], asked?.headers['x-amp-exp-exposure-track']], ['no-track', 'track']);
  });
  await check('a wrong key is told so, and asked for once', async () => {
    const stranger = nodeClient(proxy.url, 'wrong-key');
    await cloud.takeAsked();
    for (let times = 0; times < 5; times += 1) {
      const error = await stranger.fetchV2(user(1)).then(() => undefined, (error) => error);
      same(error?.statusCode, 401);
    }
    same(await cloud.count(), 1);
  });
  await check('a revoked key is refused at once', async () => {
    const client = nodeClient(proxy.url, 'server-revoked');
    await client.fetchV2(user(1));
    await cloud.revoke('server-revoked');
    const unseen = await client.fetchV2(user(2)).catch((error) => error);
    const seen = await client.fetchV2(user(1)).catch((error) => error);
    same([unseen.statusCode, seen.statusCode], [401, 401]);
  });
  await check('two deployments never share answers', async () => {
    await cloud.setFlagsOf('server-other', cohortFlags());
    const other = nodeClient(proxy.url, 'server-other');
    for (const number of [1, 2, 7]) {
      const [mine, theirs] = [await through.fetchV2(user(number)), await other.fetchV2(user(number))];
      same(Object.keys(theirs).sort(), ['partner', 'vip']);
      same(mine, await direct.fetchV2(user(number)));
    }
  });
  await check('a learnt key needs no configuration to be answered in an outage', async () => {
    await cloud.fail('refused');
    const answers = await Promise.all(users.map((_, number) => through.fetchV2(user(1000 + number))));
    await cloud.fail(null);
    answers.forEach((answer, number) => {
      const wanted = v2(evaluate(flags(), user(1000 + number)));
      for (const [key, variant] of Object.entries(answer)) same(variant.key, wanted[key]?.key, key);
      expect(Object.keys(wanted).every((key) => key in answer), 'a flag is missing');
    });
  });
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}
