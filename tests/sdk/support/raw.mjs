// A plain HTTP client that sends exactly what it is told to.

import http from 'node:http';

const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });

/**
 * Sends a request to `base` and gives status, headers, body, milliseconds and how flagside came to its answer.
 *
 * `target` goes into the request line as it is; `chunked` sends the body without a length.
 */
export function send(base, { method = 'GET', target, headers = {}, body, chunked = false }) {
  const { hostname, port } = new URL(base);
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const length = body === undefined || chunked ? {} : { 'Content-Length': Buffer.byteLength(body) };
    const request = http.request({ hostname, port, method, path: target, headers: { ...headers, ...length }, agent }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const status = response.headers['cache-status'] ?? '';
        resolve({
          status: response.statusCode,
          headers: response.headers,
          text,
          json: () => JSON.parse(text),
          isHit: /; hit/.test(status) && !/detail=stale/.test(status),
          isFetched: /; stored/.test(status),
          took: performance.now() - began,
        });
      });
    });
    request.setTimeout(30_000, () => request.destroy(new Error('no answer within 30 s')));
    request.on('error', reject);
    request.end(body);
  });
}

/** Base64 as most SDKs write it. */
export function urlSafe(value) {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
}

/** A question as the Node SDK asks it. */
export function question(key, user, keys) {
  const headers = { Authorization: `Api-Key ${key}`, 'X-Amp-Exp-User': urlSafe(user) };
  if (keys) headers['X-Amp-Exp-Flag-Keys'] = urlSafe(keys);
  return { target: '/sdk/v2/vardata?v=0', headers };
}
