// The two programs that the checks talk to: the fake cloud and flagside.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import readline from 'node:readline';

const here = path.dirname(path.dirname(new URL(import.meta.url).pathname));

/** The program under test. */
export const program = process.env.FLAGSIDE;

// Nothing that was started here outlives the checks, however they end.
const children = new Set();
process.on('exit', () => { for (const child of children) child.kill('SIGKILL'); });

function started(child) {
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Starts a fake cloud; its methods are those of `control` in cloud.mjs. */
export function startCloud() {
  return startFake('cloud.mjs', ['setFlags', 'setFlagsOf', 'fail', 'setDelay', 'revoke', 'tellWho', 'takeAsked']);
}

/** Starts a fake FeatBit server; its methods are those of `control` in featbit-cloud.mjs. */
export function startFeatbit() {
  return startFake('featbit-cloud.mjs', ['change', 'flags', 'fail', 'closeStreams', 'takeAsked', 'takeInsights']);
}

async function startFake(script, methods) {
  const child = started(spawn(process.execPath, [path.join(here, script)], { stdio: ['pipe', 'pipe', 'inherit'] }));
  const [line] = await once(readline.createInterface(child.stdout), 'line');
  const { url, control } = JSON.parse(line);
  const call = async (method, ...given) => {
    const response = await fetch(control, { method: 'POST', body: JSON.stringify({ [method]: given }) });
    return (await response.json())[method];
  };
  const cloud = Object.fromEntries(methods.map((name) => [name, (...given) => call(name, ...given)]));
  /** How many questions, or requests of another route, reached it since the last call. */
  cloud.count = async (route = 'vardata') => (await cloud.takeAsked()).filter((asked) => asked.route === route).length;
  return { ...cloud, url, stop: () => child.kill() };
}

/** Starts flagside with these arguments besides the addresses. */
export async function startProxy(...given) {
  const address = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  const child = started(spawn(program, ['run', ...address, ...given], { stdio: ['ignore', 'pipe', 'pipe'] }));
  const log = [];
  const proxy = { log, child };
  const listening = new Promise((resolve, reject) => {
    const read = (line) => {
      log.push(line);
      const data = /"listen\.data":"([^",]+)/.exec(line)?.[1];
      const admin = /"listen\.admin":"([^",]+)/.exec(line)?.[1];
      if (data) resolve({ url: `http://${data}`, admin: `http://${admin}` });
    };
    for (const output of [child.stdout, child.stderr]) readline.createInterface(output).on('line', read);
    child.once('exit', (code) => reject(new Error(`flagside ended with ${code} before it listened:\n${log.join('\n')}`)));
    child.once('error', reject);
  });
  Object.assign(proxy, await listening);
  proxy.stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`flagside died:\n${log.slice(-5).join('\n')}`);
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    const [code] = await exit;
    if (code !== 0) throw new Error(`flagside ended with ${code}:\n${log.slice(-5).join('\n')}`);
  };
  return proxy;
}

/** Starts flagside before a cloud, with default settings but these. */
export function startBefore(cloud, ...given) {
  return startProxy('--upstream', cloud.url, ...given);
}
