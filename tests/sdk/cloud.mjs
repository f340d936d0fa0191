// A fake Amplitude cloud on loopback: it speaks the contract (API 2 to 5), evaluates with the published TypeScript
// engine, counts what it is asked, and fails as it is told to.

import { evaluate, v1, v2 } from './support/engine.mjs';
import { Fake, json } from './support/fake.mjs';
import { faults } from './support/faults.mjs';
import { flags } from './support/flags.mjs';

const SECRET = `Basic ${Buffer.from('api:secret:with:colons').toString('base64')}`;
const COHORTS = {
  'c-users': { groupType: 'User', memberIds: ['u-1', 'u-7?>~ÿ'] },
  'c-orgs': { groupType: 'org', memberIds: ['org-1', 'org-3'] },
};

const state = { flags: flags(), own: {}, revoked: new Set(), delay: 0, who: false, etags: false };
let asked = [];
const streams = new Set();

/** What the control URL can call. */
const control = {
  /** Replaces the flags of every deployment without flags of its own, and tells the streams. */
  setFlags: (set) => { state.flags = set; push(); },
  /** Gives one deployment flags of its own. */
  setFlagsOf: (key, set) => { state.own[key] = set; push(); },
  /** Every request fails this way from now on; null heals. */
  fail: (fault) => cloud.fail(fault),
  /** Milliseconds before every proper answer. */
  setDelay: (delay) => { state.delay = delay; },
  /** Answers 401 to this key. */
  revoke: (key) => { state.revoked.add(key); },
  /** Adds a flag `who` to variants, whose payload says what was asked, by whom. */
  tellWho: (who) => { state.who = who; },
  /** The requests since the last call, each with route, method, target, headers and user. */
  takeAsked: () => { const all = asked; asked = []; return all; },
};

const cloud = new Fake((request, response, body) => {
  const { pathname, searchParams } = new URL(request.url, 'http://cloud');
  const key = /^api-key +(.*)$/i.exec(request.headers.authorization ?? '')?.[1];
  const call = { request, response, pathname, searchParams, key, body };
  call.route = routeOf(pathname);
  response.setHeader('Access-Control-Allow-Origin', '*');
  if (request.method === 'OPTIONS' && !cloud.fault) return preflight(call);
  const { method, url: target, headers } = request;
  const record = { route: call.route, method, target, headers, failed: cloud.fault, remote: searchParams.get('eval_mode') === 'remote' };
  asked.push(record);
  if (cloud.fault) return faults[cloud.fault](call, () => respond(call, record));
  return setTimeout(() => respond(call, record), state.delay);
}, { keepAliveTimeout: 60_000, maxHeaderSize: 128 * 1024 });

function preflight({ request, response }) {
  asked.push({ route: 'preflight' });
  const allowed = request.headers['access-control-request-headers'] ?? '';
  response.writeHead(204, { 'Access-Control-Allow-Headers': allowed, 'Access-Control-Allow-Methods': 'GET, POST' }).end();
}

function routeOf(pathname) {
  if (/^\/(v1|sdk|sdk\/v2)\/vardata$/.test(pathname)) return 'vardata';
  if (/^\/(v1|sdk\/v2)\/flags$/.test(pathname)) return 'flags';
  if (pathname === '/sdk/stream/v1/flags') return 'stream';
  if (pathname.startsWith('/sdk/v1/cohort/')) return 'cohort';
  return 'other';
}

function respond(call, record) {
  const { response, key, route } = call;
  if (route === 'cohort') return cohort(call);
  if (!/^(server|client)-/.test(key ?? '') || state.revoked.has(key)) return text(response, 401, 'Invalid deployment key');
  const set = state.own[key] ?? state.flags;
  if (route === 'vardata') return vardata(call, set, record);
  if (route === 'flags') {
    const remote = call.searchParams.get('eval_mode') === 'remote';
    return json(response, set.filter((flag) => remote || flag.metadata.evaluationMode === 'local'));
  }
  if (route === 'stream') return stream(call);
  if (call.pathname === '/web/v1/configs') return json(response, { target: call.request.url });
  return text(response, 404, 'Not found');
}

function vardata({ request, response, pathname, searchParams, key, body }, set, record) {
  let user;
  let keys;
  try {
    user = userOf(request, searchParams, body);
    keys = keysOf(request, searchParams);
  } catch {
    return text(response, 400, 'invalid request');
  }
  Object.assign(record, { key, user, keys });
  const answer = (pathname === '/sdk/v2/vardata' ? v2 : v1)(evaluate(set, withCohorts(user), keys));
  if (state.who) answer.who = { key: 'asked', value: 'asked', payload: { key, user, keys } };
  return json(response, answer);
}

function userOf(request, query, body) {
  const header = request.headers['x-amp-exp-user'];
  let user = {};
  if (request.method === 'POST') user = body === '' ? {} : JSON.parse(body);
  else if (header !== undefined) user = JSON.parse(decoded(header));
  else if (query.has('context')) user = JSON.parse(query.get('context'));
  if (typeof user !== 'object' || user === null || Array.isArray(user)) throw new Error('no object');
  for (const id of ['user_id', 'device_id']) if (query.has(id)) user[id] = query.get(id);
  return user;
}

function keysOf(request, query) {
  const header = request.headers['x-amp-exp-flag-keys'];
  const list = header === undefined ? (query.get('flag_keys') ?? '').split(',') : JSON.parse(decoded(header));
  return [...new Set(list.map((key) => key.trim()).filter(Boolean))];
}

// Strict about UTF-8, lenient about the alphabet, as Node is.
function decoded(base64) {
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(base64, 'base64'));
}

function withCohorts(user) {
  const of = (type, name) => Object.keys(COHORTS).filter((id) => COHORTS[id].groupType === type && COHORTS[id].memberIds.includes(name));
  const org = user.groups?.org?.[0];
  const cohort_ids = of('User', user.user_id);
  return { ...user, cohort_ids, group_cohort_ids: org ? { org: { [org]: of('org', org) } } : {} };
}

function cohort({ request, response, pathname, searchParams }) {
  if (request.headers.authorization !== SECRET) return text(response, 401, 'Invalid secret');
  const cohortId = decodeURIComponent(pathname.slice('/sdk/v1/cohort/'.length));
  const found = COHORTS[cohortId];
  if (!found) return text(response, 404, 'No such cohort');
  const lastModified = 1_700_000_000_000;
  if (Number(searchParams.get('lastModified')) >= lastModified) return response.writeHead(204).end();
  const { groupType, memberIds } = found;
  return json(response, { cohortId, groupType, groupTypeId: -1, lastComputed: lastModified, lastModified, size: memberIds.length, memberIds });
}

function stream(call) {
  const { response, key } = call;
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  const send = () => {
    const set = state.own[key] ?? state.flags;
    response.write(`data: ${JSON.stringify(set.filter((flag) => flag.metadata.evaluationMode === 'local'))}\n\n`);
  };
  streams.add(send);
  const beat = setInterval(() => response.write('data:  \n\n'), 15_000);
  response.on('close', () => { streams.delete(send); clearInterval(beat); });
  send();
}

function push() {
  for (const send of streams) send();
}

function text(response, status, line) {
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' }).end(line);
}

await cloud.start(control);
