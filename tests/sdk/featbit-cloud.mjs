// A fake FeatBit evaluation server on loopback: it speaks the recorded contract (FB 3, 6 and 7), counts what it is asked,
// and fails as it is told to.

import { Fake, json } from './support/fake.mjs';
import { faults } from './support/faults.mjs';
import { SECRETS, decodeToken, flags, segments, verdict } from './support/featbit.mjs';
import { sdk } from './support/sdk.mjs';

// The websocket library that the Node SDK brings.
const { WebSocketServer } = sdk('ws');

const JSON_TYPE = 'application/json; charset=utf-8';
const state = { flags: flags(), segments: segments(), updates: 0 };
let asked = [];
let insights = [];

/** What the control URL can call. */
const control = {
  /** Changes members of a flag and tells those who stream. */
  change: (key, members) => {
    state.updates += 1;
    const updatedAt = new Date(Date.now() + state.updates).toISOString();
    state.flags = state.flags.map((flag) => (flag.key === key ? { ...flag, ...members, updatedAt } : flag));
    push({ eventType: 'patch', featureFlags: state.flags.filter((flag) => flag.key === key), segments: [] });
  },
  /** The flags as they are. */
  flags: () => state.flags,
  /** Every request fails this way from now on; null heals. */
  fail: (fault) => cloud.fail(fault),
  /** Closes every stream with this code. */
  closeStreams: (code) => { for (const socket of streams.clients) socket.close(code); },
  /** The requests since the last call. */
  takeAsked: () => { const all = asked; asked = []; return all; },
  /** The insights since the last call. */
  takeInsights: () => { const all = insights; insights = []; return all; },
};

function message(since) {
  const newer = ({ updatedAt }) => since === 0 || Date.parse(updatedAt) > since;
  const data = { eventType: since === 0 ? 'full' : 'patch', featureFlags: state.flags.filter(newer), segments: state.segments.filter(newer) };
  return { messageType: 'data-sync', data };
}

const cloud = new Fake((request, response, body) => {
  const { pathname, searchParams } = new URL(request.url, 'http://server');
  const route = pathname.split('/').slice(-2).join('/');
  asked.push({ route, method: request.method, target: request.url, headers: request.headers });
  const call = { request, response, route };
  const proper = () => respond(call, searchParams, body);
  if (cloud.fault) return faults[cloud.fault](call, proper);
  return proper();
}, { cut: () => { for (const stream of streams.clients) stream.terminate(); } });

function respond({ request, response, route }, query, body) {
  if (!Object.values(SECRETS).includes(request.headers.authorization)) return response.writeHead(401).end();
  if (route === 'featureflag/evaluate') return evaluate(response, JSON.parse(body));
  if (route === 'server/latest-all') {
    const newer = message(Number(query.get('timestamp') ?? 0));
    const isEmpty = newer.data.eventType === 'patch' && !newer.data.featureFlags.length && !newer.data.segments.length;
    return isEmpty ? response.writeHead(200).end() : json(response, newer, JSON_TYPE);
  }
  if (route === 'insight/track') {
    insights.push(...JSON.parse(body));
    return response.writeHead(200).end();
  }
  return response.writeHead(404).end();
}

function evaluate(response, { user, filter }) {
  const custom = Object.fromEntries((user.customizedProperties ?? []).map(({ name, value }) => [name, value]));
  const values = verdict(state.flags, { ...user, custom: { email: '', ...custom } });
  const wanted = state.flags.filter(({ key }) => !filter?.keys?.length || filter.keys.includes(key));
  json(response, wanted.map((flag) => {
    const { id, value } = flag.variations.find((variation) => variation.value === values[flag.key]);
    return { key: flag.key, variation: { id, type: flag.variationType, value, matchReason: 'default', sendToExperiment: false } };
  }), JSON_TYPE);
}

const streams = new WebSocketServer({ noServer: true });

cloud.server.on('upgrade', (request, socket, head) => {
  asked.push({ route: 'streaming', target: request.url.replace(/token=[^&]*/, 'token=***') });
  if (cloud.fault) return socket.destroy();
  return streams.handleUpgrade(request, socket, head, (stream) => serve(stream, new URL(request.url, 'http://server').searchParams));
});

function serve(stream, query) {
  const { secret, ms } = decodeToken(query.get('token') ?? '');
  if (query.get('type') !== 'server' || secret !== SECRETS.server || Math.abs(Date.now() - ms) > 30_000) {
    return stream.close(4003, 'invalid request, close by server');
  }
  return stream.on('message', (text) => {
    const { messageType, data } = JSON.parse(text.toString());
    if (messageType === 'ping') stream.send(JSON.stringify({ messageType: 'pong', data: {} }));
    if (messageType === 'data-sync') stream.send(JSON.stringify(message(data.timestamp)));
  });
}

function push(data) {
  for (const stream of streams.clients) stream.send(JSON.stringify({ messageType: 'data-sync', data }));
}

await cloud.start(control);
