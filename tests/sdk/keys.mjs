// One question is one entry, two questions are two: spellings, interleaved users, identical misses at once.

import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { flags, user } from './support/flags.mjs';
import { evaluate, v1, v2 } from './support/engine.mjs';
import { question, send } from './support/raw.mjs';
import { restSpellings, sdkSpellings } from './support/spellings.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

const KEY = 'server-keys';

// Escapes, quotes, slashes and characters of every width; no member that a spelling could not reorder.
const SOMEBODY = {
  user_id: 'ü/1?>~',
  device_id: 'd-1',
  country: 'São Tomé',
  groups: { org: ['org-1', 'org-2'], team: ['😀'] },
  group_properties: { org: { 'org-1': { seats: 75, big: 1e3 } } },
  user_properties: { plan: '企業', tags: ['x?>y', '<&>'], nothing: null, half: 0.5, yes: true },
};
const KEYS = ['theme', 'sale', 'banner'];

export async function run() {
  chapter('Questions and entries');
  const cloud = await startCloud();
  const proxy = await startBefore(cloud);
  await check('every spelling of one SDK question is one upstream request', () =>
    spelled(cloud, proxy, sdkSpellings(KEY, SOMEBODY, KEYS), v2(evaluate(flags(), SOMEBODY, KEYS))));
  await check('every spelling of one REST question is one upstream request', () =>
    spelled(cloud, proxy, restSpellings(KEY, SOMEBODY, KEYS), v1(evaluate(flags(), SOMEBODY, KEYS))));
  await check('every spelling alone is answered by the cloud as another is', async () => {
    for (const [at, spelling] of sdkSpellings('server-alone', SOMEBODY, KEYS).entries()) {
      const own = { ...spelling, headers: { ...spelling.headers } };
      const name = Object.keys(own.headers).find((header) => header.toLowerCase() === 'authorization');
      own.headers[name] = own.headers[name].replace('server-alone', `server-alone-${at}`);
      const answer = await send(proxy.url, own);
      same([answer.status, answer.json()], [200, v2(evaluate(flags(), SOMEBODY, KEYS))], spelling.name);
    }
  });
  await check('all spellings at once are one upstream request', async () => {
    const spellings = sdkSpellings('server-at-once', SOMEBODY, KEYS);
    await cloud.setDelay(150);
    await cloud.takeAsked();
    const answers = await Promise.all(spellings.map((spelling) => send(proxy.url, spelling)));
    await cloud.setDelay(0);
    for (const answer of answers) same([answer.status, answer.json()], [200, v2(evaluate(flags(), SOMEBODY, KEYS))]);
    same(await cloud.count(), 1, 'upstream requests');
  });
  await check('questions that differ are never one', () => different(cloud, proxy));
  await check('60 users of 3 keys at once, each asked eight times, never mix', () => interleaved(cloud, proxy));
  await check('200 identical misses at once are one upstream request', () => crowd(cloud, proxy));
  await check('200 identical misses of a key that nobody used before are one upstream request', () =>
    crowd(cloud, proxy, 'server-crowd'));
  await check('a flag change reaches users whose answers are stored', () => changed(cloud));
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}

async function spelled(cloud, proxy, spellings, wanted) {
  expect(spellings.length >= 12, 'too few spellings');
  await cloud.takeAsked();
  let upstream = 1;
  for (const spelling of [...spellings, ...spellings]) {
    const answer = await send(proxy.url, spelling);
    same([answer.status, answer.text && answer.json()], [200, wanted], spelling.name);
    same(await cloud.count(), upstream, `upstream requests by: ${spelling.name}`);
    upstream = 0;
  }
  return `${spellings.length} spellings`;
}

async function different(cloud, proxy) {
  const base = { user_id: 'x', user_properties: { n: 1 } };
  const users = [
    base, { ...base, user_id: 'X' }, { ...base, user_id: 'x ' }, { ...base, device_id: '' }, { ...base, device_id: null },
    { user_id: 'x', user_properties: { n: '1' } }, { user_id: 'x', user_properties: { n: [1] } },
    { user_id: 'x', user_properties: { n: true } }, { user_id: 'x', user_properties: {} }, { user_id: 'x' },
    { user_id: '\u00e9' }, { user_id: 'e\u0301' }, { user_id: 7 }, { user_id: '7' },
    { groups: { org: ['a', 'b'] } }, { groups: { org: ['b', 'a'] } },
    { user_properties: { p: { x: 1, y: 2 } } }, { user_properties: { p: { y: 2, x: 1 } } },
  ];
  const texts = [...users.map((one) => JSON.stringify(one)), '{"user_id":"x","user_properties":{"n":1.0}}',
    '{"user_id":"x","user_properties":{"n":1e0}}'];
  const asks = texts.flatMap((text) => [
    ['/sdk/v2/vardata?v=0'], ['/sdk/vardata'], ['/sdk/v2/vardata?v=1'], ['/sdk/v2/vardata', ['theme']],
    ['/sdk/v2/vardata', ['Theme']], ['/sdk/v2/vardata', ['theme', 'sale']], ['/sdk/v2/vardata?delivery_method=web'],
  ].map(([target, keys]) => ({ target, body: text, method: 'POST', headers: {
    Authorization: `Api-Key ${KEY}`, ...(keys && { 'X-Amp-Exp-Flag-Keys': JSON.stringify(keys) && Buffer.from(JSON.stringify(keys)).toString('base64') }),
  } })));
  await cloud.takeAsked();
  await cloud.tellWho(true);
  for (const ask of asks) {
    const answer = await send(proxy.url, ask);
    same(answer.json().who?.payload.user, JSON.parse(ask.body), `${ask.target} ${ask.body}`);
  }
  await cloud.tellWho(false);
  same(await cloud.count(), asks.length, 'upstream requests');
  return `${asks.length} questions`;
}

async function interleaved(cloud, proxy) {
  await cloud.tellWho(true);
  await cloud.setDelay(5);
  await cloud.takeAsked();
  const pairs = Array.from({ length: 180 }, (_, at) => [user(at % 60), `server-mix-${Math.floor(at / 60)}`]);
  const round = pairs.flatMap((pair) => Array.from({ length: 8 }, () => pair)).sort(() => Math.random() - 0.5);
  const answers = await Promise.all(round.map(async ([somebody, key]) => {
    const answer = await send(proxy.url, question(key, somebody));
    return [answer, somebody, key];
  }));
  await cloud.setDelay(0);
  await cloud.tellWho(false);
  for (const [answer, somebody, key] of answers) {
    expect(answer.status === 200, `${answer.status} ${answer.text}`);
    const { who, ...rest } = answer.json();
    same(rest, v2(evaluate(flags(), somebody)), somebody.user_id);
    if (who) same([who.payload.key, who.payload.user], [key, somebody], 'an answer made for somebody else');
  }
  same(await cloud.count(), pairs.length, 'upstream requests');
  return `${answers.length} answers`;
}

async function crowd(cloud, proxy, key = KEY) {
  await cloud.setDelay(150);
  await cloud.takeAsked();
  const somebody = user(key === KEY ? 900 : 901);
  const answers = await Promise.all(Array.from({ length: 200 }, () => send(proxy.url, question(key, somebody))));
  for (const answer of answers) same([answer.status, answer.json()], [200, v2(evaluate(flags(), somebody))]);
  same(await cloud.count(), 1, 'upstream requests');
  await cloud.setDelay(0);
  await eventually('a hit', async () => (await send(proxy.url, question(key, somebody))).isHit);
}

async function changed(cloud) {
  const proxy = await startBefore(cloud, '--set', 'sync.flags_interval=1s');
  const people = Array.from({ length: 10 }, (_, number) => user(number));
  const ask = (somebody) => send(proxy.url, question('server-changed', somebody));
  for (const somebody of people) await ask(somebody);
  await eventually('a hit', async () => (await ask(people[0])).isHit);
  await cloud.setFlags(flags(2));
  await eventually('version 2', async () => (await ask(people[0])).json().theme.payload?.version === 2, 5);
  for (const somebody of people) same((await ask(somebody)).json(), v2(evaluate(flags(2), somebody)), somebody.user_id);
  await cloud.setFlags(flags());
  await proxy.stop();
}
