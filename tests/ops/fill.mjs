// Fills the cache of a sidecar: COUNT users, each with an answer of 4 KiB, over 16 connections.
//
//   node fill.mjs PORT COUNT
import http from 'node:http';

const [port, count] = process.argv.slice(2).map(Number);
const headers = { authorization: 'Api-Key client-0123456789abcdef' };
const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
const began = Date.now();
let next = 0;

function ask(path) {
  return new Promise((resolve, reject) => {
    http.get({ host: '127.0.0.1', port, path, agent, headers }, (response) => {
      response.on('data', () => {});
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`))));
    }).on('error', reject);
  });
}

async function worker() {
  while (next < count) {
    const user = next;
    next += 1;
    await ask(`/v1/vardata?user_id=big-${user}`);
  }
}

await Promise.all(Array.from({ length: 16 }, worker));
console.log(`${count} users in ${((Date.now() - began) / 1000).toFixed(1)} s`);
agent.destroy();
