// The ways in which the fake cloud fails. Each takes the call; `proper` gives the proper answer after all.

const HOLD = () => {};

// A head and the beginning of a body of `length` bytes.
function begin(response, length, part) {
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': length });
  if (part) response.write(part);
  else response.flushHeaders();
}

function status(code, headers = {}) {
  return ({ response }) => response.writeHead(code, { 'Content-Type': 'text/plain', ...headers }).end('upstream is unwell');
}

function body(text, type = 'application/json') {
  return ({ response }) => response.writeHead(200, { 'Content-Type': type }).end(text);
}

// Fails without a word to the client but these bytes.
function raw(bytes) {
  return ({ request }) => request.socket.end(bytes);
}

/** By name; `refused` besides, which is not a way of answering. */
export const faults = {
  reset: ({ request }) => request.socket.resetAndDestroy(),
  'closed without an answer': ({ request }) => request.socket.destroy(),
  hanging: HOLD,
  'hanging after the head': ({ response }) => begin(response, 1000),
  'hanging in the body': ({ response }) => begin(response, 1000, '{"theme":{"key":'),
  slow: (call, proper) => setTimeout(proper, 4000),
  'a byte at a time': ({ response }) => {
    begin(response, 1000, '{');
    const drip = setInterval(() => response.write(' '), 50);
    response.on('close', () => clearInterval(drip));
  },
  truncated: ({ request, response }) => {
    begin(response, 1000, '{"theme":{"key":"on"}}');
    setTimeout(() => request.socket.destroy(), 20);
  },
  garbage: raw('\u0000\u0001 this is not HTTP at all\r\n\r\n'),
  'an error page': body('<html><body>Bad gateway</body></html>', 'text/html'),
  'broken JSON': body('{"theme":{"key":"on"'),
  empty: body(''),
  'null': body('null'),
  'the wrong shape': ({ response, route }) => body(route === 'flags' ? '{"theme":{}}' : '["theme"]')({ response }),
  'wrong members': ({ response, route }) => body(route === 'flags' ? '["theme"]' : '{"theme":"on"}')({ response }),
  'an error in a 200': body('{"error":{"code":503,"message":"unwell"}}'),
  'answering 500': status(500),
  'answering 502': status(502),
  'answering 503': status(503, { 'Retry-After': '120' }),
  'answering 504': status(504),
  'answering 429': status(429, { 'Retry-After': '120' }),
  'redirecting elsewhere': status(302, { Location: 'http://127.0.0.1:9/' }),
  'answering 404': status(404),
};

/** All names. */
export const outages = ['refused', ...Object.keys(faults)];
