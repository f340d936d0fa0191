// Outages: users are answered as the cloud would have answered them, at once, and all returns to normal afterwards.

import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { flags, user } from './support/flags.mjs';
import { evaluate, v1, v2 } from './support/engine.mjs';
import { nodeClient } from './remote.mjs';
import { outages } from './support/faults.mjs';
import { question, send } from './support/raw.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

const LANES = 3;
const SLOWEST = 1000;
const KEY = 'server-outage';

/** Outages in which a flags request is answered 200, or with a refusal. */
const BAD_FLAGS = ['empty', 'null', 'the wrong shape', 'wrong members', 'an error in a 200', 'an error page', 'broken JSON', 'truncated', 'answering 404'];

/** The ways in which a user is asked about in an outage. */
const WAYS = [
  { shape: v2, keys: undefined, ask: (somebody) => question(KEY, somebody) },
  { shape: v2, keys: ['sale', 'tags'], ask: (somebody) => question(KEY, somebody, ['sale', 'tags']) },
  {
    shape: v2,
    ask: (somebody) => ({
      method: 'POST', target: '/sdk/v2/vardata?v=0', body: JSON.stringify(somebody),
      headers: { Authorization: `Api-Key ${KEY}`, 'Content-Type': 'application/json;charset=utf-8' },
    }),
  },
  {
    shape: v1,
    ask: (somebody) => ({
      target: `/v1/vardata?context=${encodeURIComponent(JSON.stringify(somebody))}`,
      headers: { Authorization: `Api-Key ${KEY}` },
    }),
  },
];

async function outage(fault) {
  const cloud = await startCloud();
  const proxy = await startBefore(cloud);
  let slowest = 0;
  const answered = async (way, somebody, about) => {
    const answer = await send(proxy.url, way.ask(somebody));
    slowest = Math.max(slowest, answer.took);
    expect(answer.status === 200, `${about}: ${answer.status} ${answer.text} after ${Math.round(answer.took)} ms`);
    same(answer.json(), way.shape(evaluate(flags(), somebody, way.keys)), about);
    expect(answer.took < SLOWEST, `${about}: ${Math.round(answer.took)} ms`);
  };
  const everybody = async (first, about) => {
    const asked = Array.from({ length: 24 }, (_, at) => answered(WAYS[at % WAYS.length], user(first + at), `${about} user ${at}`));
    await Promise.all(asked);
  };
  await everybody(0, 'before, a');
  await cloud.fail(fault);
  await everybody(0, 'a seen');
  await everybody(100, 'an unseen');
  const node = nodeClient(proxy.url, KEY);
  for (const number of [3, 210, 211, 212]) {
    const got = await node.fetchV2(user(number));
    same(Object.keys(got).sort(), Object.keys(evaluate(flags(), user(number))).sort(), 'the Node SDK');
  }
  await everybody(300, 'another unseen');
  const set = await send(proxy.url, { target: '/sdk/v2/flags?v=0', headers: { Authorization: `Api-Key ${KEY}` } });
  expect(set.status === 200 && set.took < SLOWEST, `flags: ${set.status} after ${Math.round(set.took)} ms`);
  same(set.json(), flags().filter((flag) => flag.metadata.evaluationMode === 'local'), 'the flags of an outage');
  await recovery(cloud, proxy);
  await proxy.stop();
  cloud.stop();
  return `slowest ${Math.round(slowest)} ms`;
}

async function recovery(cloud, proxy) {
  await cloud.setFlags(flags(2));
  await cloud.fail(null);
  await cloud.takeAsked();
  let stranger = 1000;
  await eventually('the cloud is asked again', async () => {
    stranger += 1;
    const answer = await send(proxy.url, question(KEY, user(stranger)));
    expect(answer.status === 200, `during recovery: ${answer.status}`);
    return answer.isFetched && (await cloud.count()) > 0;
  }, 15);
  const answer = await send(proxy.url, question(KEY, user(5000)));
  same(answer.json(), v2(evaluate(flags(2), user(5000))), 'after the outage');
}

// Does `task` for all items, a few at a time.
async function each(items, task) {
  const waiting = [...items];
  const lane = async () => {
    while (waiting.length) await task(waiting.shift());
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

// The outage lasts over polls of the flags, which are as bad as the rest.
async function polled(fault) {
  const cloud = await startCloud();
  const proxy = await startBefore(cloud, '--set', 'sync.flags_interval=1s');
  await send(proxy.url, question(KEY, user(0)));
  await eventually('the first sync', async () => (await cloud.count('flags')) >= 2);
  await cloud.fail(fault);
  await cloud.takeAsked();
  await eventually('a poll', async () => (await cloud.count('flags')) > 0);
  await new Promise((resolve) => { setTimeout(resolve, 200); });
  const somebody = user(1);
  const answer = await send(proxy.url, question(KEY, somebody));
  same([answer.status, answer.json()], [200, v2(evaluate(flags(), somebody))]);
  await proxy.stop();
  cloud.stop();
}

async function crowds() {
  const cloud = await startCloud();
  const proxy = await startBefore(cloud);
  await send(proxy.url, question(KEY, user(0)));
  await eventually('the first sync', async () => (await cloud.count('flags')) > 0);
  await cloud.fail('hanging');
  await cloud.takeAsked();
  const people = Array.from({ length: 500 }, (_, at) => user(at < 300 ? 1000 + at : 9999));
  const answers = await Promise.all(people.map((somebody) => send(proxy.url, question(KEY, somebody))));
  answers.forEach((answer, at) => same([answer.status, answer.json()], [200, v2(evaluate(flags(), people[at]))]));
  const slowest = Math.round(Math.max(...answers.map(({ took }) => took)));
  const asked = await cloud.count();
  expect(asked <= 301, `${asked} upstream requests for 301 questions`);
  expect(slowest < 2 * SLOWEST, `slowest ${slowest} ms, sent 500 at once by one thread`);
  await proxy.stop();
  cloud.stop();
  return `slowest ${slowest} ms`;
}

export async function run() {
  chapter(`Outages: ${outages.length} kinds, default settings, seen and unseen users`);
  await each(outages, (fault) => check(`nobody notices that the cloud is ${fault}`, () => outage(fault)));
  await each(BAD_FLAGS, (fault) => check(`the flags survive polls of a cloud that is ${fault}`, () => polled(fault)));
  await check('300 unseen users and 200 identical questions at once while the cloud hangs', crowds);
  await check('a cloud that comes and goes costs nobody an answer', flapping);
  await check('stored answers stand in for flags that were never synced', unsynced);
}

async function flapping() {
  const cloud = await startCloud();
  const proxy = await startBefore(cloud);
  await send(proxy.url, question(KEY, user(0)));
  await eventually('the first sync', async () => (await cloud.count('flags')) > 0);
  for (const [round, fault] of ['reset', 'answering 500', null, 'hanging', 'refused', null, 'garbage', null].entries()) {
    await cloud.fail(fault);
    const asked = Array.from({ length: 30 }, async (_, at) => {
      const somebody = user(round * 100 + at);
      const answer = await send(proxy.url, question(KEY, somebody));
      expect(answer.status === 200, `${fault}: ${answer.status}`);
      same(answer.json(), v2(evaluate(flags(), somebody)), `${fault}`);
    });
    await Promise.all(asked);
  }
  await proxy.stop();
  cloud.stop();
}

// The flags route fails from the start, vardata later on: seen users are safe, unseen ones are told to come again.
async function unsynced() {
  const cloud = await startCloud();
  const proxy = await startBefore(cloud, '--set', 'cache.fresh_for=1ms', '--set', 'cache.stale_while_revalidate=0s');
  const somebody = user(1);
  await send(proxy.url, question(KEY, somebody));
  await cloud.fail('refused');
  const answer = await send(proxy.url, question(KEY, somebody));
  same([answer.status, answer.json()], [200, v2(evaluate(flags(), somebody))]);
  const stranger = await send(proxy.url, question('server-never-seen', somebody));
  same([stranger.status, stranger.headers['retry-after']], [503, '1'], 'a key that nothing is known of');
  await proxy.stop();
  cloud.stop();
}
