// One question in many spellings: what SDKs of other languages and by-hand callers send for the same user (API 2, 3).

import { urlSafe } from './raw.mjs';

const base64 = (text) => Buffer.from(text).toString('base64');

/** `value`, a user, as JSON in another style: members reversed where order means nothing, spaces, `\uXXXX`. */
function json(value, { reversed = false, spaced = false, escaped = false, slashes = false } = {}) {
  let text = JSON.stringify(reversed ? turned(value, 1) : value, undefined, spaced ? '\t ' : undefined);
  if (escaped) text = text.replace(/[<>&\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  if (slashes) text = text.replaceAll('/', '\\/');
  return text;
}

// Levels of objects below each member whose order means nothing (API 9.3, step 9).
const LEVELS = { user_properties: 1, groups: 1, group_properties: 3, group_cohort_ids: 2 };

function turned(value, levels, root = true) {
  if (levels === 0 || typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const below = (name) => (root ? LEVELS[name] ?? 0 : levels - 1);
  return Object.fromEntries(Object.entries(value).reverse().map(([name, member]) => [name, turned(member, below(name), false)]));
}

/** Spellings of `user` and flag `keys` on `/sdk/v2/vardata`, each a request with a name. */
export function sdkSpellings(key, user, keys) {
  const target = '/sdk/v2/vardata?v=0';
  const authorization = { Authorization: `Api-Key ${key}` };
  const wanted = { 'X-Amp-Exp-Flag-Keys': urlSafe(keys) };
  const plain = json(user);
  const get = (encoded, more = {}, path = target) => ({
    target: path, headers: { ...authorization, 'X-Amp-Exp-User': encoded, ...wanted, ...more },
  });
  const post = (body, more = {}, path = target) => ({
    method: 'POST', target: path, body, headers: { ...authorization, 'Content-Type': 'application/json;charset=utf-8', ...wanted, ...more },
  });
  const listed = (query) => ({ target: `/sdk/v2/vardata?${query}`, headers: { ...authorization, 'X-Amp-Exp-User': urlSafe(plain) } });
  const list = keys.map(encodeURIComponent);
  const unpadded = base64(plain).replace(/=+$/, '');
  return Object.entries({
    node: get(urlSafe(plain)),
    'standard alphabet, padded': get(base64(plain), { 'X-Amp-Exp-Flag-Keys': base64(JSON.stringify(keys)) }),
    'standard alphabet, no padding': get(unpadded),
    'URL-safe alphabet, padded': get(base64(plain).replaceAll('+', '-').replaceAll('/', '_')),
    'both alphabets': get(base64(plain).replace('+', '-')),
    'blanks around the values': get(`  ${urlSafe(plain)} `, { 'X-Amp-Exp-Flag-Keys': ` ${urlSafe(keys)}  ` }),
    'members reversed': get(urlSafe(json(user, { reversed: true }))),
    'white space': get(urlSafe(json(user, { spaced: true }))),
    'escapes, as Python and Go write them': get(urlSafe(json(user, { escaped: true }))),
    'a member twice, the last one counts': get(urlSafe(plain.replace('{', '{"user_id":"somebody else",'))),
    'the user in the query': { target: `/sdk/v2/vardata?context=${encodeURIComponent(plain)}`, headers: { ...authorization, ...wanted } },
    'escaped slashes': get(urlSafe(json(user, { slashes: true }))),
    'all of these': get(base64(json(user, { reversed: true, spaced: true, escaped: true, slashes: true }))),
    post: post(plain),
    'post as Python': post(json(user, { escaped: true, spaced: true }), { 'Accept-Encoding': 'identity' }),
    'post in chunks': { ...post(plain), chunked: true },
    'post after asking to': post(plain, { Expect: '100-continue' }),
    'post as a form says it is': post(plain, { 'Content-Type': 'application/x-www-form-urlencoded' }),
    'no version': get(urlSafe(plain), {}, '/sdk/v2/vardata'),
    'doubled slash': get(urlSafe(plain), {}, '//sdk/v2/vardata?v=0'),
    'doubled slashes and one at the end': get(urlSafe(plain), {}, '//sdk//v2/vardata/?v=0'),
    'empty query pairs': get(urlSafe(plain), {}, '/sdk/v2/vardata?&&v=0&'),
    'absolute target': get(urlSafe(plain), {}, 'http://127.0.0.1:3546/sdk/v2/vardata?v=0'),
    'flag keys in another order, twice': get(urlSafe(plain), { 'X-Amp-Exp-Flag-Keys': urlSafe([...keys].reverse().concat(keys)) }),
    'flag_keys in the query': listed(`v=0&flag_keys=${list.join(',')}`),
    'flag_key in the query': listed(`flag_key=${list.join('%2C%20')},`),
    'scheme in capitals': get(urlSafe(plain), { Authorization: `API-KEY   ${key}` }),
    'scheme in lower case': get(urlSafe(plain), { Authorization: `api-key ${key} ` }),
    'names in lower case': lowered(get(urlSafe(plain))),
    'a type on a GET, as Go': get(urlSafe(plain), { 'Content-Type': 'application/json; charset=UTF-8', 'User-Agent': 'Go-http-client/1.1', 'Accept-Encoding': 'gzip' }),
    'a library': get(urlSafe(plain), { 'X-Amp-Exp-Library': 'experiment-jvm-server/1.8.2' }),
    'what browsers add': get(urlSafe(plain), { 'Cache-Control': 'no-cache', Pragma: 'no-cache', Cookie: 'a=b', Origin: 'https://app.example', Referer: 'https://app.example/', 'Accept-Language': 'de' }),
    'what proxies add': get(urlSafe(plain), { 'X-Forwarded-For': '192.0.2.1', Via: '1.1 proxy', traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`, 'X-Request-Id': 'abc' }),
    'tracking said outright': get(urlSafe(plain), { 'X-Amp-Exp-Track': 'track', 'X-Amp-Exp-Exposure-Track': 'no-track' }),
  }).map(([name, request]) => ({ ...request, name: `sdk: ${name}` }));
}

function lowered(request) {
  return { ...request, headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name.toLowerCase(), value])) };
}

/** The same for `/v1/vardata`; `user` needs both ids. */
export function restSpellings(key, user, keys) {
  const { user_id, device_id, ...rest } = user;
  const headers = { Authorization: `Api-Key ${key}` };
  const whole = encodeURIComponent(json(user));
  const ids = `user_id=${encodeURIComponent(user_id)}&device_id=${encodeURIComponent(device_id)}`;
  const list = keys.join(',');
  const get = (query, more) => ({ target: `/v1/vardata?${query}`, headers: { ...headers, ...more } });
  return Object.entries({
    context: get(`context=${whole}&flag_keys=${list}`),
    'hexadecimal in lower case': get(`context=${whole.replace(/%../g, (hex) => hex.toLowerCase())}&flag_keys=${list}`),
    'plus for space': get(`context=${whole.replaceAll('%20', '+')}&flag_keys=${list}`),
    'everything escaped': get(`context=${[...Buffer.from(json(user))].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')}&flag_keys=${list}`),
    'parameters in another order': get(`flag_keys=${list}&context=${whole}`),
    'members reversed': get(`context=${encodeURIComponent(json(user, { reversed: true, spaced: true, escaped: true }))}&flag_keys=${list}`),
    'ids in the query': get(`${ids}&context=${encodeURIComponent(json(rest))}&flag_keys=${list}`),
    'ids in both': get(`${ids}&context=${whole}&flag_keys=${list}`),
    'flag_key': get(`context=${whole}&flag_key=${list}`),
    'flag keys in the header': get(`context=${whole}`, { 'X-Amp-Exp-Flag-Keys': urlSafe(keys) }),
    'flag keys reversed, with blanks': get(`context=${whole}&flag_keys=+${[...keys].reverse().join('%20,%20')},,`),
    post: { method: 'POST', target: `/v1/vardata?flag_keys=${list}`, headers: { ...headers, 'Content-Type': 'application/json' }, body: json(user) },
    'post with an id in the query': { method: 'POST', target: `/v1/vardata?flag_keys=${list}&user_id=${encodeURIComponent(user_id)}`, headers, body: json(user) },
    'leading ampersand': get(`&context=${whole}&&flag_keys=${list}&`),
  }).map(([name, request]) => ({ ...request, name: `rest: ${name}` }));
}
